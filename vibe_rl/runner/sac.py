"""Soft actor-critic, top to bottom in the order in which it runs.

Haarnoja et al. 2018, *Soft Actor-Critic Algorithms and Applications* (arXiv:1812.05905), below
"SAC": algorithm 1, with twin critics, squashed actions (appendix "Enforcing action bounds") and a
temperature that adjusts itself (section "Automating entropy adjustment for maximum entropy RL").
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vibe_rl.metrics import LogBackend
from vibe_rl.run_dir import RunDir
from vibe_rl.runner.compiled import Algorithm
from vibe_rl.runner.environment import ContinuousActions, VectorEnv
from vibe_rl.runner.loop import Callback, run_loop
from vibe_rl.runner.networks import Params, SquashedActor, TwinCritic
from vibe_rl.runner.off_policy import LossMetrics, TrainState, first_state, train
from vibe_rl.runner.replay import Transition
from vibe_rl.runner.sac_config import SACConfig


class Metrics(NamedTuple):
    """What is logged of an interval; each field is a float32 scalar.

    Attributes:
        episode_return: Mean return of the last 100 episodes that have finished, or of fewer as
            long as there are fewer; NaN before the first.
        episode_length: Mean length of the same episodes, in steps.
        actor_loss: This and all below, averaged over the interval's gradient steps, NaN if there
            was none: see `actor_loss`.
        critic_loss: See `critic_loss`.
        alpha: The temperature: what a nat of entropy is worth in reward.
        entropy: Estimate of the policy's entropy, in nats, for actions scaled to [-1, 1].
        q_mean: Mean value of the actions in the batch, over both critics.
    """

    episode_return: jax.Array
    episode_length: jax.Array
    actor_loss: jax.Array
    critic_loss: jax.Array
    alpha: jax.Array
    entropy: jax.Array
    q_mean: jax.Array


class Weights(NamedTuple):
    """What is learned, or what there is of each: parameters, or states of optimisers.

    Attributes:
        actor: Of the policy.
        critic: Of both critics.
        log_alpha: Of the temperature's logarithm, a float32 scalar.
    """

    actor: Any
    critic: Any
    log_alpha: Any


class Learner(NamedTuple):
    """What gradient steps change.

    Attributes:
        params: The parameters.
        target_params: Those of the target critics, which follow the critics slowly.
        opt_state: States of the optimisers.
    """

    params: Weights
    target_params: Params
    opt_state: Weights


def train_sac(
    config: SACConfig,
    *,
    env: Any = None,
    run_dir: RunDir | None = None,
    backends: Sequence[LogBackend] = (),
    callback: Callback | None = None,
    progress: bool = False,
) -> tuple[TrainState, dict[str, np.ndarray]]:
    """Train an agent by soft actor-critic.

    Logs what `Metrics` lists; otherwise like `train_ppo`.

    Args:
        config: The settings, the environment and the seed among them.
        env: An environment in place of the config's: see `train_ppo`, as for what follows.
        run_dir: Where to save and log to; None logs nothing.
        backends: What else gets every record; needs a `run_dir`.
        callback: Called as `callback(step, train_state, metrics)` after each record.
        progress: Whether to show a progress bar on a terminal.

    Returns:
        The final state, and the history: see `train_ppo`.

    Raises:
        TypeError: If `config` is no `SACConfig`, or `run_dir` no `RunDir`.
        ValueError: If the environment's actions are not continuous and bounded; and see
            `train_ppo`.
        OSError: See `train_ppo`.

    Examples:
        >>> run = RunDir("sac_pendulum")
        >>> config = SACConfig(total_timesteps=2_000, seed=1)
        >>> train_state, metrics = train_sac(config, run_dir=run)
    """
    return run_loop(
        SAC,
        config,
        env,
        run_dir=run_dir,
        backends=backends,
        callback=callback,
        progress=progress,
    )


def actions_of(env: VectorEnv) -> ContinuousActions:
    """The actions that the environments take."""
    return cast("ContinuousActions", env.actions)


def init_train_state(config: SACConfig, env: VectorEnv, key: jax.Array) -> TrainState:
    """The state before the first step."""
    key, env_key, actor_key, critic_key = jax.random.split(key, 4)
    obs, env_state = env.reset(env_key)
    action = jnp.zeros((config.num_envs, actions_of(env).size))
    params = Weights(
        make_actor(config, env).init(actor_key, obs),
        make_critic(config).init(critic_key, obs, action),
        jnp.log(jnp.float32(config.initial_alpha)),
    )
    opt_state = Weights(*(make_optimizer(config).init(each) for each in params))
    learner = Learner(params, params.critic, opt_state)
    return first_state(config, learner, env_state, obs, action[0], key)


def make_actor(config: SACConfig, env: VectorEnv) -> SquashedActor:
    """The policy, whose actions are scaled to [-1, 1]."""
    return SquashedActor(actions_of(env).size, config.hidden_sizes, config.activation)


def make_critic(config: SACConfig) -> TwinCritic:
    """The two critics."""
    return TwinCritic(config.hidden_sizes, config.activation)


def make_optimizer(config: SACConfig) -> optax.GradientTransformation:
    """Adam, for each of the `Weights`."""
    return optax.adam(config.learning_rate)


def train_chunk(
    config: SACConfig, env: VectorEnv, state: TrainState, num_updates: jax.Array
) -> tuple[TrainState, Metrics]:
    """Train for one log interval."""
    state, loss_metrics = train(
        config,
        env,
        state,
        num_updates,
        choose=partial(explore, config, env),
        gradient_step=partial(gradient_step, config, env),
    )
    episode_return, episode_length = state.episodes.means()
    return state, Metrics(episode_return, episode_length, **loss_metrics)


def act(config: SACConfig, env: VectorEnv, state: TrainState, obs: jax.Array) -> jax.Array:
    """For each observation, what the mean of the policy is squashed to."""
    policy = make_actor(config, env).policy(state.learner.params.actor, obs)
    return env.actions.scale(policy.mode())


def explore(config: SACConfig, env: VectorEnv, state: TrainState, key: jax.Array) -> jax.Array:
    """Actions that the policy draws, scaled to [-1, 1]."""
    return make_actor(config, env).policy(state.learner.params.actor, state.obs).sample(key)[0]


def gradient_step(
    config: SACConfig, env: VectorEnv, learner: Learner, batch: Transition, key: jax.Array
) -> tuple[Learner, LossMetrics]:
    """Improve the critics, the actor and the temperature, in this order (SAC, algorithm 1)."""
    actor, critic = make_actor(config, env), make_critic(config)
    optimizer = make_optimizer(config)
    next_key, action_key = jax.random.split(key)
    params, opt_state = learner.params, learner.opt_state
    alpha = jnp.exp(params.log_alpha)

    next_action, next_log_prob = actor.policy(params.actor, batch.next_obs).sample(next_key)
    next_values = critic.values(learner.target_params, batch.next_obs, next_action)
    target = soft_target(batch, next_values, next_log_prob, alpha, gamma=config.gamma)
    grads, (critic_error, q_mean) = jax.grad(critic_loss, has_aux=True)(
        params.critic, critic, batch, target
    )
    updates, critic_state = optimizer.update(grads, opt_state.critic)
    critic_params = optax.apply_updates(params.critic, updates)

    grads, (actor_error, log_prob) = jax.grad(actor_loss, has_aux=True)(
        params.actor, actor, critic_params, critic, batch.obs, alpha=alpha, key=action_key
    )
    updates, actor_state = optimizer.update(grads, opt_state.actor)
    actor_params = optax.apply_updates(params.actor, updates)

    default = -float(actions_of(env).size)
    target_entropy = default if config.target_entropy is None else config.target_entropy
    grad = jax.grad(temperature_loss)(params.log_alpha, log_prob, target_entropy)
    update, alpha_state = optimizer.update(grad, opt_state.log_alpha)
    log_alpha = optax.apply_updates(params.log_alpha, update)

    learner = Learner(
        Weights(actor_params, critic_params, log_alpha),
        optax.incremental_update(critic_params, learner.target_params, config.tau),
        Weights(actor_state, critic_state, alpha_state),
    )
    return learner, {
        "actor_loss": actor_error,
        "critic_loss": critic_error,
        "alpha": alpha,
        "entropy": -jnp.mean(log_prob),
        "q_mean": q_mean,
    }


def soft_target(
    batch: Transition,
    next_values: jax.Array,
    next_log_prob: jax.Array,
    alpha: jax.Array,
    *,
    gamma: float,
) -> jax.Array:
    """What the critics should say: the soft value (SAC, equation 3) one step on, as in equation 5.

        target = r + gamma * (min_i Q_target,i(s', a') - alpha * log pi(a' | s')),
                 or r if s' is terminal

    The lesser critic's value counts (SAC, section "Practical algorithm"). An episode cut off by its
    time limit ends in no terminal state: see `Transition`.

    Args:
        batch: Transitions with one leading axis.
        next_values: Values that the target critics give to `a'`, which the policy draws in `s'`:
            float32 `(batch_size, 2)`.
        next_log_prob: Log-density of `a'`: float32 `(batch_size,)`.
        alpha: The temperature.
        gamma: Discount factor.

    Returns:
        The targets, float32 `(batch_size,)`.
    """
    soft_value = jnp.min(next_values, axis=-1) - alpha * next_log_prob
    return batch.reward + gamma * jnp.where(batch.terminated, 0.0, soft_value)


def critic_loss(
    params: Params, critic: TwinCritic, batch: Transition, target: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """The squared errors of both critics, halved and added (SAC, equation 5).

    Args:
        params: Parameters of the critics.
        critic: The critics.
        batch: What they judge; one leading axis.
        target: What the critics should say of them; see `soft_target`.

    Returns:
        The loss; and once more the loss, with the mean value of the actions taken.
    """
    values = critic.values(params, batch.obs, batch.action)
    error = jnp.sum(0.5 * jnp.mean(jnp.square(values - target[:, None]), axis=0))
    return error, (error, jnp.mean(values))


def actor_loss(
    params: Params,
    actor: SquashedActor,
    critic_params: Params,
    critic: TwinCritic,
    obs: jax.Array,
    *,
    alpha: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """What the policy minimises, through the action that it draws (SAC, equation 9).

        loss = mean(alpha * log pi(a | s) - min_i Q_i(s, a)),  where the policy draws a in s

    Args:
        params: Parameters of the actor.
        actor: The actor.
        critic_params: Parameters of the critics.
        critic: The critics.
        obs: float32 `(batch_size, obs_size)`; the states.
        alpha: The temperature.
        key: Random key of the actions.

    Returns:
        The loss; and once more the loss, with the log-densities of the actions, `(batch_size,)`.
    """
    action, log_prob = actor.policy(params, obs).sample(key)
    value = jnp.min(critic.values(critic_params, obs, action), axis=-1)
    error = jnp.mean(alpha * log_prob - value)
    return error, (error, log_prob)


def temperature_loss(log_alpha: jax.Array, log_prob: jax.Array, target_entropy: float) -> jax.Array:
    """What the temperature minimises (SAC, equation 18).

        loss = mean(-alpha * (log pi(a | s) + target_entropy))

    So it rises while the policy's entropy is below the target, and falls while it is above.

    Args:
        log_alpha: Logarithm of the temperature.
        log_prob: Log-densities of actions that the policy drew: float32 `(batch_size,)`.
        target_entropy: The entropy to keep, in nats.

    Returns:
        The loss.
    """
    return -jnp.exp(log_alpha) * jnp.mean(log_prob + target_entropy)


SAC = Algorithm("SAC", SACConfig, "continuous", init_train_state, train_chunk, act)

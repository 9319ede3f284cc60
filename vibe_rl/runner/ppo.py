"""Proximal policy optimisation, top to bottom in the order in which it runs.

Schulman et al. 2017, *Proximal Policy Optimization Algorithms* (arXiv:1707.06347), below "PPO",
with generalised advantage estimation: Schulman et al. 2016, *High-Dimensional Continuous Control
Using Generalized Advantage Estimation* (arXiv:1506.02438), below "GAE".
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vibe_rl.metrics import LogBackend
from vibe_rl.run_dir import RunDir
from vibe_rl.runner.compiled import Algorithm
from vibe_rl.runner.environment import Outcome, VectorEnv
from vibe_rl.runner.episodes import RecentEpisodes
from vibe_rl.runner.loop import Callback, run_loop
from vibe_rl.runner.networks import ActorCritic, Params
from vibe_rl.runner.ppo_config import PPOConfig
from vibe_rl.runner.returns import ReturnSpread
from vibe_rl.runner.updates import repeat


class Metrics(NamedTuple):
    """What is logged of an interval; each field is a float32 scalar.

    Attributes:
        episode_return: Mean return of the last 100 episodes that have finished, or of fewer as
            long as there are fewer; NaN before the first.
        episode_length: Mean length of the same episodes, in steps.
        actor_loss: This and all below, averaged over the interval's gradient steps: see `loss`.
        critic_loss: The critic's part of the loss, unweighted; of scaled rewards, if they are.
        entropy: Entropy of the policy, in nats.
        approx_kl: Estimate of how far the policy has moved from the one that took the steps.
        clip_fraction: Share of the steps whose probability ratio lies outside the clipping range.
    """

    episode_return: jax.Array
    episode_length: jax.Array
    actor_loss: jax.Array
    critic_loss: jax.Array
    entropy: jax.Array
    approx_kl: jax.Array
    clip_fraction: jax.Array


LossMetrics = dict[str, jax.Array]
"""Those of the `Metrics` that `loss` computes."""


class TrainState(NamedTuple):
    """All that a run needs to go on from where it is.

    Attributes:
        params: Parameters of the actor and the critic.
        opt_state: State of the optimiser, among it the number of gradient steps.
        env_state: State of the environments.
        obs: float32 `(num_envs, obs_size)`; observations to act on next.
        episodes: The episodes that finished last.
        returns: The spread of the returns, by which rewards are scaled.
        key: Random key of all that is to come.
    """

    params: Params
    opt_state: optax.OptState
    env_state: Any
    obs: jax.Array
    episodes: RecentEpisodes
    returns: ReturnSpread
    key: jax.Array


class Transition(NamedTuple):
    """Steps taken by the policy; each field has leading axes `(num_steps, num_envs)`."""

    obs: jax.Array
    action: jax.Array
    log_prob: jax.Array
    outcome: Outcome


class Batch(NamedTuple):
    """What the loss is computed from; each field has one leading axis."""

    obs: jax.Array
    action: jax.Array
    log_prob: jax.Array  # of `action`, when it was taken
    value: jax.Array  # of `obs`, as the critic saw it then
    advantage: jax.Array
    target: jax.Array  # what the critic should say of `obs`


def train_ppo(
    config: PPOConfig,
    *,
    env: Any = None,
    run_dir: RunDir | None = None,
    backends: Sequence[LogBackend] = (),
    callback: Callback | None = None,
    progress: bool = False,
) -> tuple[TrainState, dict[str, np.ndarray]]:
    """Train an agent by proximal policy optimisation.

    The run is compiled once, and logs live: after each log interval, one record with `step`, the
    environment steps so far; the fields of `Metrics`; and `steps_per_second`. After each
    evaluation, one with `step` and the fields of `Evaluation`. With several seeds, there is one for
    each, with its `seed`.

    Args:
        config: The settings, the environment and the seed among them.
        env: An environment in place of the config's: an object with gymnax's interface, or a pair
            of such an object and its parameters.
        run_dir: Where to save the config and log to; None logs nothing. If it has a checkpoint, the
            run goes on from there; else anew.
        backends: What else gets every record; needs a `run_dir`. They are closed in the end,
            whatever that is.
        callback: Called as `callback(step, train_state, metrics)` after each record, with its
            fields, and those of an evaluation at the same step. Training waits for it.
        progress: Whether to show a progress bar on a terminal.

    Returns:
        The final state, and the history: each field of the records as an array with one value for
        each record, so that `metrics["eval_return_mean"][-1]` is the final return; the step of
        evaluations is called `eval_step`. With several seeds, all arrays have a leading axis for
        them.

    Raises:
        TypeError: If `config` is no `PPOConfig`, `run_dir` no `RunDir`, or `env` lacks something
            of gymnax's interface.
        ValueError: If the environment is unknown; if there are backends but no run directory; or if
            the run directory has a checkpoint of another config, environment or program.
        OSError: If a training is under way in the run directory; or if records have to make way
            there, but another logger has the metrics file open.

    Examples:
        >>> run = RunDir("ppo_cartpole")
        >>> config = PPOConfig(total_timesteps=20_000, seed=1)
        >>> train_state, metrics = train_ppo(config, run_dir=run)
    """
    return run_loop(
        PPO,
        config,
        env,
        run_dir=run_dir,
        backends=backends,
        callback=callback,
        progress=progress,
    )


def init_train_state(config: PPOConfig, env: VectorEnv, key: jax.Array) -> TrainState:
    """The state before the first step."""
    key, env_key, network_key = jax.random.split(key, 3)
    obs, env_state = env.reset(env_key)
    params = make_network(config, env).init(network_key, obs)
    opt_state = make_optimizer(config).init(params)
    episodes, returns = RecentEpisodes.none(), ReturnSpread.none(config.num_envs)
    return TrainState(params, opt_state, env_state, obs, episodes, returns, key)


def make_network(config: PPOConfig, env: VectorEnv) -> ActorCritic:
    """The network that `TrainState.params` belong to."""
    return ActorCritic(env.actions, config.hidden_sizes, config.activation)


def make_optimizer(config: PPOConfig) -> optax.GradientTransformation:
    """Adam on clipped gradients, with a step size that may fall linearly to zero."""
    learning_rate: optax.ScalarOrSchedule = config.learning_rate
    if config.anneal_learning_rate:
        gradient_steps = config.num_updates * config.update_epochs * config.num_minibatches
        learning_rate = optax.linear_schedule(config.learning_rate, 0.0, gradient_steps)
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm), optax.adam(learning_rate, eps=1e-5)
    )
    return optax.flatten(optimizer)  # all parameters as one vector: fewer and larger operations


def train_chunk(
    config: PPOConfig, env: VectorEnv, state: TrainState, num_updates: jax.Array
) -> tuple[TrainState, Metrics]:
    """Train for one log interval."""

    def update(state: TrainState) -> tuple[TrainState, LossMetrics]:
        state, steps = collect(config, env, state)
        batch = make_batch(config, env, state, steps)
        return learn(config, env, state, batch)

    state, loss_metrics = repeat(update, state, num_updates)
    episode_return, episode_length = state.episodes.means()
    return state, Metrics(episode_return, episode_length, **loss_metrics)


def act(config: PPOConfig, env: VectorEnv, state: TrainState, obs: jax.Array) -> jax.Array:
    """The most likely action for each observation."""
    policy = make_network(config, env).policy(state.params, obs)
    return env.actions.scale(policy.mode())


def collect(config: PPOConfig, env: VectorEnv, state: TrainState) -> tuple[TrainState, Transition]:
    """Take `num_steps` steps in each environment with the present policy."""
    network = make_network(config, env)

    def step(state: TrainState, _: None) -> tuple[TrainState, Transition]:
        key, action_key, env_key = jax.random.split(state.key, 3)
        policy = network.policy(state.params, state.obs)
        action = policy.sample(action_key)
        obs, env_state, outcome = env.step(env_key, state.env_state, env.actions.scale(action))
        transition = Transition(state.obs, action, policy.log_prob(action), outcome)
        return state._replace(obs=obs, env_state=env_state, key=key), transition

    state, steps = jax.lax.scan(step, state, length=config.num_steps)
    ended = steps.outcome
    episodes = state.episodes.add(ended.done, ended.episode_return, ended.episode_length)
    returns = state.returns.add(ended.reward, ended.done, config.gamma)
    return state._replace(episodes=episodes, returns=returns), steps


def make_batch(config: PPOConfig, env: VectorEnv, state: TrainState, steps: Transition) -> Batch:
    """Judge the steps taken, and lay them out for learning: `num_steps * num_envs` rows."""
    network = make_network(config, env)
    value = network.value(state.params, steps.obs)
    next_value = network.value(state.params, steps.outcome.next_obs)
    reward = steps.outcome.reward
    advantage = estimate_advantages(
        state.returns.scale(reward) if config.scale_rewards else reward,
        value,
        next_value,
        steps.outcome.terminated,
        steps.outcome.done,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
    )
    batch = Batch(steps.obs, steps.action, steps.log_prob, value, advantage, advantage + value)
    return Batch(*(x.reshape(-1, *x.shape[2:]) for x in batch))


def estimate_advantages(
    reward: jax.Array,
    value: jax.Array,
    next_value: jax.Array,
    terminated: jax.Array,
    done: jax.Array,
    *,
    gamma: float,
    gae_lambda: float,
) -> jax.Array:
    """Generalised advantage estimation (GAE, equation 16; PPO, equations 11 and 12).

        delta_t = r_t + gamma * V(s_t+1) - V(s_t),  where V(s_t+1) = 0 if s_t+1 is terminal
        A_t     = delta_t + gamma * lambda * A_t+1, where A_t+1 = 0 if the episode ended with t

    An episode cut off by its time limit ends the sum, but is no terminal state: its last
    observation keeps its value, since the task would have gone on.

    Args:
        reward: float32 `(num_steps, ...)`.
        value: Critic's value of the observations acted on, like `reward`.
        next_value: Critic's value of the observations that the actions led to, like `reward`.
        terminated: bool, like `reward`; the episode came to its own end.
        done: bool, like `reward`; the episode ended, by itself or by its time limit.
        gamma: Discount factor.
        gae_lambda: Weight of long returns, from 0 to 1.

    Returns:
        The advantages, like `reward`.
    """
    delta = reward + gamma * jnp.where(terminated, 0.0, next_value) - value

    def back(
        advantage: jax.Array, step: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        delta, done = step
        advantage = delta + gamma * gae_lambda * jnp.where(done, 0.0, advantage)
        return advantage, advantage

    _, advantages = jax.lax.scan(back, jnp.zeros_like(delta[0]), (delta, done), reverse=True)
    return advantages


def learn(
    config: PPOConfig, env: VectorEnv, state: TrainState, batch: Batch
) -> tuple[TrainState, LossMetrics]:
    """Pass over the batch `update_epochs` times, in minibatches drawn anew each time."""
    network = make_network(config, env)
    optimizer = make_optimizer(config)

    def gradient_step(state: TrainState, minibatch: Batch) -> tuple[TrainState, LossMetrics]:
        grads, metrics = jax.grad(loss, has_aux=True)(state.params, network, minibatch, config)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return state._replace(params=params, opt_state=opt_state), metrics

    def epoch(state: TrainState, _: None) -> tuple[TrainState, LossMetrics]:
        key, order_key = jax.random.split(state.key)
        order = jax.random.permutation(order_key, config.steps_per_update)
        order = order.reshape(config.num_minibatches, -1)
        minibatches = jax.tree.map(lambda x: x[order], batch)
        return jax.lax.scan(gradient_step, state._replace(key=key), minibatches)

    state, metrics = jax.lax.scan(epoch, state, length=config.update_epochs)
    return state, jax.tree.map(jnp.mean, metrics)


def loss(
    params: Params, network: ActorCritic, batch: Batch, config: PPOConfig
) -> tuple[jax.Array, LossMetrics]:
    """The clipped objective (PPO, equations 7 and 9), as a loss to minimise.

        actor_loss  = -mean(min(ratio * A, clip(ratio, 1 - epsilon, 1 + epsilon) * A))
        critic_loss = mean((V - target)^2) / 2
        loss        = actor_loss + value_coef * critic_loss - entropy_coef * entropy

    Args:
        params: Parameters of the network.
        network: The actor and the critic.
        batch: A minibatch.
        config: The coefficients.

    Returns:
        The loss, and metrics: its three parts; `approx_kl`, an estimate of the KL divergence of
        the new policy from the one that took the steps, mean(ratio - 1 - log(ratio)); and
        `clip_fraction`, how much of the minibatch has a ratio further than epsilon from 1.
    """
    policy = network.policy(params, batch.obs)
    value = network.value(params, batch.obs)
    epsilon = config.clip_epsilon

    advantage = batch.advantage
    if config.normalize_advantage:
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    log_ratio = policy.log_prob(batch.action) - batch.log_prob
    ratio = jnp.exp(log_ratio)
    clipped_ratio = jnp.clip(ratio, 1.0 - epsilon, 1.0 + epsilon)
    actor_loss = -jnp.mean(jnp.minimum(ratio * advantage, clipped_ratio * advantage))

    squared_error = jnp.square(value - batch.target)
    if config.clip_value_loss:
        near_value = batch.value + jnp.clip(value - batch.value, -epsilon, epsilon)
        squared_error = jnp.maximum(squared_error, jnp.square(near_value - batch.target))
    critic_loss = 0.5 * jnp.mean(squared_error)

    entropy = jnp.mean(policy.entropy())
    metrics = {
        "actor_loss": actor_loss,
        "critic_loss": critic_loss,
        "entropy": entropy,
        "approx_kl": jnp.mean(ratio - 1.0 - log_ratio),
        "clip_fraction": jnp.mean(jnp.abs(ratio - 1.0) > epsilon),
    }
    return actor_loss + config.value_coef * critic_loss - config.entropy_coef * entropy, metrics


PPO = Algorithm("PPO", PPOConfig, None, init_train_state, train_chunk, act)

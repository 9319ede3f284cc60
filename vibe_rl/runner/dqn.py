"""Deep Q-learning, top to bottom in the order in which it runs.

Mnih et al. 2015, *Human-level control through deep reinforcement learning*
(doi:10.1038/nature14236), algorithm 1, with the target of van Hasselt et al. 2016, *Deep
Reinforcement Learning with Double Q-learning* (arXiv:1509.06461), section "Double DQN". Unlike
theirs, the optimiser is Adam, the loss is the plain squared error, which no clipping flattens, and
several environments run side by side.
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
from vibe_rl.runner.dqn_config import DQNConfig
from vibe_rl.runner.environment import DiscreteActions, VectorEnv
from vibe_rl.runner.loop import Callback, run_loop
from vibe_rl.runner.networks import MLP, Params
from vibe_rl.runner.off_policy import LossMetrics, TrainState, first_state, train
from vibe_rl.runner.replay import Transition


class Metrics(NamedTuple):
    """What is logged of an interval; each field is a float32 scalar.

    Attributes:
        episode_return: Mean return of the last 100 episodes that have finished, or of fewer as
            long as there are fewer; NaN before the first.
        episode_length: Mean length of the same episodes, in steps.
        loss: This and the next, averaged over the interval's gradient steps, NaN if there was
            none: see `loss`.
        q_mean: Mean value of the actions in the batch.
        epsilon: Share of random actions at the interval's end.
    """

    episode_return: jax.Array
    episode_length: jax.Array
    loss: jax.Array
    q_mean: jax.Array
    epsilon: jax.Array


class Learner(NamedTuple):
    """What gradient steps change.

    Attributes:
        params: Parameters of the network.
        target_params: Those of the target network: what `params` were a while ago.
        opt_state: State of the optimiser.
        num_steps: int32 scalar; gradient steps so far.
    """

    params: Params
    target_params: Params
    opt_state: optax.OptState
    num_steps: jax.Array


def train_dqn(
    config: DQNConfig,
    *,
    env: Any = None,
    run_dir: RunDir | None = None,
    backends: Sequence[LogBackend] = (),
    callback: Callback | None = None,
    progress: bool = False,
) -> tuple[TrainState, dict[str, np.ndarray]]:
    """Train an agent by deep Q-learning.

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
        TypeError: If `config` is no `DQNConfig`, or `run_dir` no `RunDir`.
        ValueError: If the environment's actions are not discrete; and see `train_ppo`.
        OSError: See `train_ppo`.

    Examples:
        >>> run = RunDir("dqn_cartpole")
        >>> config = DQNConfig(total_timesteps=20_000, seed=1)
        >>> train_state, metrics = train_dqn(config, run_dir=run)
    """
    return run_loop(
        DQN,
        config,
        env,
        run_dir=run_dir,
        backends=backends,
        callback=callback,
        progress=progress,
    )


def init_train_state(config: DQNConfig, env: VectorEnv, key: jax.Array) -> TrainState:
    """The state before the first step."""
    key, env_key, network_key = jax.random.split(key, 3)
    obs, env_state = env.reset(env_key)
    params = cast("Params", make_network(config, env).init(network_key, obs))
    learner = Learner(params, params, make_optimizer(config).init(params), jnp.int32(0))
    return first_state(config, learner, env_state, obs, jnp.int32(0), key)


def make_network(config: DQNConfig, env: VectorEnv) -> MLP:
    """The network that gives each action's value: float32 `(..., num_actions)`."""
    num_actions = cast("DiscreteActions", env.actions).num
    return MLP(config.hidden_sizes, num_actions, 1.0, config.activation)


def make_optimizer(config: DQNConfig) -> optax.GradientTransformation:
    """Adam on clipped gradients, with a step size that may fall linearly to zero."""
    learning_rate: optax.ScalarOrSchedule = config.learning_rate
    if config.anneal_learning_rate:
        # A run that ends before it learns has none, which optax would warn of.
        gradient_steps = max(config.num_gradient_steps, 1)
        learning_rate = optax.linear_schedule(config.learning_rate, 0.0, gradient_steps)
    clip = optax.clip_by_global_norm(config.max_grad_norm)
    # All parameters as one vector: fewer and larger operations.
    return optax.flatten(optax.chain(clip, optax.adam(learning_rate)))


def train_chunk(
    config: DQNConfig, env: VectorEnv, state: TrainState, num_updates: jax.Array
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
    return state, Metrics(
        episode_return, episode_length, **loss_metrics, epsilon=epsilon(config, state.num_steps)
    )


def act(config: DQNConfig, env: VectorEnv, state: TrainState, obs: jax.Array) -> jax.Array:
    """The action of the greatest value for each observation."""
    return jnp.argmax(values_of(make_network(config, env), state.learner.params, obs), axis=-1)


def values_of(network: MLP, params: Params, obs: jax.Array) -> jax.Array:
    """The value of each action for observations `(..., obs_size)`: `(..., num_actions)`."""
    return cast("jax.Array", network.apply(params, obs))


def epsilon(config: DQNConfig, num_steps: jax.Array) -> jax.Array:
    """Share of random actions after so many environment steps: it changes linearly, then stays."""
    schedule = optax.linear_schedule(config.epsilon_start, config.epsilon_end, config.epsilon_steps)
    return jnp.asarray(schedule(num_steps), jnp.float32)


def explore(config: DQNConfig, env: VectorEnv, state: TrainState, key: jax.Array) -> jax.Array:
    """A random action in that share of the environments, and the best one in the others."""
    explore_key, random_key = jax.random.split(key)
    shape = (config.num_envs,)
    random = jax.random.randint(random_key, shape, 0, cast("DiscreteActions", env.actions).num)
    explores = jax.random.uniform(explore_key, shape) < epsilon(config, state.num_steps)
    return jnp.where(explores, random, act(config, env, state, state.obs))


def gradient_step(
    config: DQNConfig, env: VectorEnv, learner: Learner, batch: Transition, _: jax.Array
) -> tuple[Learner, LossMetrics]:
    """Improve the network by one batch; and copy it to the target network when that is due."""
    grads, metrics = jax.grad(loss, has_aux=True)(
        learner.params, learner.target_params, make_network(config, env), batch, config
    )
    updates, opt_state = make_optimizer(config).update(grads, learner.opt_state, learner.params)
    params = optax.apply_updates(learner.params, updates)
    num_steps = learner.num_steps + 1
    target_params = optax.periodic_update(
        params, learner.target_params, num_steps, config.target_interval
    )
    return Learner(params, target_params, opt_state, num_steps), metrics


def loss(
    params: Params, target_params: Params, network: MLP, batch: Transition, config: DQNConfig
) -> tuple[jax.Array, LossMetrics]:
    """The squared error of the values of the actions taken (DQN, algorithm 1; Double DQN).

        target = r + gamma * Q_target(s', argmax_a Q(s', a)),  or r if s' is terminal
        loss   = mean((Q(s, a) - target)^2) / 2

    An episode cut off by its time limit ends in no terminal state: see `Transition`.

    Args:
        params: Parameters of the network, Q.
        target_params: Parameters of the target network, Q_target.
        network: The network.
        batch: Transitions with one leading axis.
        config: The discount factor.

    Returns:
        The loss, and metrics: the loss, and the mean value of the actions taken.
    """
    value = _value_of(batch.action, values_of(network, params, batch.obs))
    best = jnp.argmax(values_of(network, params, batch.next_obs), axis=-1)
    next_value = _value_of(best, values_of(network, target_params, batch.next_obs))
    target = batch.reward + config.gamma * jnp.where(batch.terminated, 0.0, next_value)
    mean_loss = 0.5 * jnp.mean(jnp.square(value - target))
    return mean_loss, {"loss": mean_loss, "q_mean": jnp.mean(value)}


def _value_of(action: jax.Array, values: jax.Array) -> jax.Array:
    return jnp.take_along_axis(values, action[..., None], axis=-1)[..., 0]


DQN = Algorithm("DQN", DQNConfig, "discrete", init_train_state, train_chunk, act)

"""Deep Q-learning, top to bottom in the order in which it runs.

Mnih et al. 2015, *Human-level control through deep reinforcement learning*
(doi:10.1038/nature14236), algorithm 1, with the target of van Hasselt et al. 2016, *Deep
Reinforcement Learning with Double Q-learning* (arXiv:1509.06461), section "Double DQN". Unlike
theirs, the optimiser is Adam, the loss is the plain squared error, which no clipping flattens, and
several environments run side by side.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vibe_rl.metrics import LogBackend
from vibe_rl.run_dir import RunDir
from vibe_rl.runner.compiled import Algorithm
from vibe_rl.runner.dqn_config import DQNConfig
from vibe_rl.runner.environment import (
    DiscreteActions,
    Outcome,
    VectorEnv,
    check_actions,
    make_env,
)
from vibe_rl.runner.episodes import RecentEpisodes
from vibe_rl.runner.loop import Callback, run_loop
from vibe_rl.runner.networks import MLP, Params
from vibe_rl.runner.replay import Transition, make_replay
from vibe_rl.runner.updates import repeat


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


LossMetrics = dict[str, jax.Array]
"""Those of the `Metrics` that `loss` computes."""


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


class TrainState(NamedTuple):
    """All that a run needs to go on from where it is.

    Attributes:
        learner: The networks and the optimiser.
        replay: State of the replay buffer.
        env_state: State of the environments.
        obs: float32 `(num_envs, obs_size)`; observations to act on next.
        episodes: The episodes that finished last.
        num_steps: int32 scalar; environment steps so far, over all environments.
        key: Random key of all that is to come.
    """

    learner: Learner
    replay: Any
    env_state: Any
    obs: jax.Array
    episodes: RecentEpisodes
    num_steps: jax.Array
    key: jax.Array


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
        ValueError: If the environment is unknown or its actions are not discrete, or if there are
            backends but no run directory.

    Examples:
        >>> run = RunDir("dqn_cartpole")
        >>> config = DQNConfig(total_timesteps=20_000, seed=1)
        >>> train_state, metrics = train_dqn(config, run_dir=run)
    """
    if not isinstance(config, DQNConfig):
        raise TypeError(f"config is a DQNConfig, not {config!r}")
    envs = make_env(config.env_id if env is None else env, config.num_envs)
    check_actions("DQN", envs, takes="discrete")
    return run_loop(
        Algorithm(init_train_state, train_chunk, act),
        config,
        envs,
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
    blank = Transition(obs[0], jnp.int32(0), jnp.float32(0.0), obs[0], jnp.array(False))
    replay = make_replay(config.buffer_size, config.batch_size).init(blank)
    return TrainState(learner, replay, env_state, obs, RecentEpisodes.none(), jnp.int32(0), key)


def make_network(config: DQNConfig, env: VectorEnv) -> MLP:
    """The network that gives each action's value: float32 `(..., num_actions)`."""
    num_actions = cast("DiscreteActions", env.actions).num
    return MLP(config.hidden_sizes, num_actions, 1.0, config.activation)


def make_optimizer(config: DQNConfig) -> optax.GradientTransformation:
    """Adam on clipped gradients, with a step size that may fall linearly to zero."""
    learning_rate: optax.ScalarOrSchedule = config.learning_rate
    if config.anneal_learning_rate:
        gradient_steps = config.num_updates * config.gradient_steps
        learning_rate = optax.linear_schedule(config.learning_rate, 0.0, gradient_steps)
    return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.adam(learning_rate))


def train_chunk(
    config: DQNConfig, env: VectorEnv, state: TrainState, num_updates: jax.Array
) -> tuple[TrainState, Metrics]:
    """Train for one log interval."""

    def update(state: TrainState) -> tuple[TrainState, LossMetrics]:
        state = collect(config, env, state)
        key, learn_key = jax.random.split(state.key)
        learned, metrics = learn(config, env, state.learner, state.replay, learn_key)
        # Not by a `cond`: with many seeds side by side, that takes both branches all the same.
        ready = state.num_steps >= config.learning_starts
        learner = jax.tree.map(lambda new, old: jnp.where(ready, new, old), learned, state.learner)
        counted = {name: jnp.where(ready, value, 0.0) for name, value in metrics.items()}
        share = {"share": ready.astype(jnp.float32)}
        return state._replace(learner=learner, key=key), counted | share

    state, means = repeat(update, state, num_updates)
    share = means.pop("share")
    metrics = {name: mean / share for name, mean in means.items()}
    episode_return, episode_length = state.episodes.means()
    return state, Metrics(
        episode_return, episode_length, **metrics, epsilon=epsilon(config, state.num_steps)
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


def collect(config: DQNConfig, env: VectorEnv, state: TrainState) -> TrainState:
    """Take `num_steps` steps in each environment, and keep them."""
    network = make_network(config, env)
    num_actions = cast("DiscreteActions", env.actions).num
    shape = (config.num_envs,)

    def step(state: TrainState, _: None) -> tuple[TrainState, tuple[Transition, Outcome]]:
        key, explore_key, random_key, env_key = jax.random.split(state.key, 4)
        best = jnp.argmax(values_of(network, state.learner.params, state.obs), axis=-1)
        random = jax.random.randint(random_key, shape, 0, num_actions)
        explores = jax.random.uniform(explore_key, shape) < epsilon(config, state.num_steps)
        action = jnp.where(explores, random, best)
        obs, env_state, outcome = env.step(env_key, state.env_state, action)
        transition = Transition(
            state.obs, action, outcome.reward, outcome.next_obs, outcome.terminated
        )
        num_steps = state.num_steps + config.num_envs
        state = state._replace(obs=obs, env_state=env_state, num_steps=num_steps, key=key)
        return state, (transition, outcome)

    state, (transitions, ended) = jax.lax.scan(step, state, length=config.num_steps)
    replay = make_replay(config.buffer_size, config.batch_size).add(state.replay, transitions)
    episodes = state.episodes.add(ended.done, ended.episode_return, ended.episode_length)
    return state._replace(replay=replay, episodes=episodes)


def learn(
    config: DQNConfig, env: VectorEnv, learner: Learner, replay: Any, key: jax.Array
) -> tuple[Learner, LossMetrics]:
    """Take `gradient_steps` gradient steps, each on a batch of its own."""
    network = make_network(config, env)
    optimizer = make_optimizer(config)
    sample = make_replay(config.buffer_size, config.batch_size).sample

    def gradient_step(learner: Learner, key: jax.Array) -> tuple[Learner, LossMetrics]:
        batch = sample(replay, key).experience
        grads, metrics = jax.grad(loss, has_aux=True)(
            learner.params, learner.target_params, network, batch, config
        )
        updates, opt_state = optimizer.update(grads, learner.opt_state, learner.params)
        params = optax.apply_updates(learner.params, updates)
        num_steps = learner.num_steps + 1
        target_params = optax.periodic_update(
            params, learner.target_params, num_steps, config.target_interval
        )
        return Learner(params, target_params, opt_state, num_steps), metrics

    keys = jax.random.split(key, config.gradient_steps)
    learner, metrics = jax.lax.scan(gradient_step, learner, keys)
    return learner, jax.tree.map(jnp.mean, metrics)


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

"""Learning from replayed steps: what algorithms that do so have in common."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vibe_rl.runner.environment import Outcome, VectorEnv
from vibe_rl.runner.episodes import RecentEpisodes
from vibe_rl.runner.off_policy_config import OffPolicyConfig
from vibe_rl.runner.replay import Transition, make_replay
from vibe_rl.runner.updates import repeat

LossMetrics = dict[str, jax.Array]
"""What a gradient step measures: float32 scalars."""


class TrainState(NamedTuple):
    """All that a run needs to go on from where it is.

    Attributes:
        learner: What gradient steps change: the networks and the optimisers.
        replay: State of the replay buffer, whose actions are as the policy gives them.
        env_state: State of the environments.
        obs: float32 `(num_envs, obs_size)`; observations to act on next.
        episodes: The episodes that finished last.
        num_steps: uint32 scalar; environment steps so far, over all environments.
        key: Random key of all that is to come.
    """

    learner: Any
    replay: Any
    env_state: Any
    obs: jax.Array
    episodes: RecentEpisodes
    num_steps: jax.Array
    key: jax.Array


Choose = Callable[[TrainState, jax.Array], jax.Array]
"""`(state, key) -> action`: what to do next in each environment."""

GradientStep = Callable[[Any, Transition, jax.Array], tuple[Any, LossMetrics]]
"""`(learner, batch, key) -> (learner, metrics)`."""


def first_state(  # noqa: PLR0917 - in the order of the state's fields
    config: OffPolicyConfig,
    learner: Any,
    env_state: Any,
    obs: jax.Array,
    action: jax.Array,
    key: jax.Array,
) -> TrainState:
    """The state before the first step, with room for steps that have actions like `action`."""
    blank = Transition(obs[0], action, jnp.float32(0.0), obs[0], jnp.array(False))
    replay = make_replay(config.buffer_size, config.batch_size).init(blank)
    return TrainState(learner, replay, env_state, obs, RecentEpisodes.none(), jnp.uint32(0), key)


def train(
    config: OffPolicyConfig,
    env: VectorEnv,
    state: TrainState,
    num_updates: jax.Array,
    *,
    choose: Choose,
    gradient_step: GradientStep,
) -> tuple[TrainState, LossMetrics]:
    """Collect steps and learn from the replay buffer by turns.

    Args:
        config: The settings.
        env: The environments.
        state: The state before.
        num_updates: int32 scalar; how many turns.
        choose: Gives the actions.
        gradient_step: Changes the learner.

    Returns:
        The state after, and the means over all gradient steps; NaN if there was none.
    """

    def update(state: TrainState) -> tuple[TrainState, LossMetrics]:
        state = collect(config, env, state, choose)
        key, learn_key = jax.random.split(state.key)
        learned, metrics = learn(config, state.learner, state.replay, learn_key, gradient_step)
        # Not by a `cond`: with many seeds side by side, that takes both branches all the same.
        ready = state.num_steps >= config.learning_starts
        learner = jax.tree.map(lambda new, old: jnp.where(ready, new, old), learned, state.learner)
        counted = {name: jnp.where(ready, value, 0.0) for name, value in metrics.items()}
        share = {"share": ready.astype(jnp.float32)}
        return state._replace(learner=learner, key=key), counted | share

    state, means = repeat(update, state, num_updates)
    share = means.pop("share")
    return state, {name: mean / share for name, mean in means.items()}


def collect(
    config: OffPolicyConfig, env: VectorEnv, state: TrainState, choose: Choose
) -> TrainState:
    """Take `num_steps` steps in each environment, and keep them."""

    def step(state: TrainState, _: None) -> tuple[TrainState, tuple[Transition, Outcome]]:
        key, action_key, env_key = jax.random.split(state.key, 3)
        action = choose(state, action_key)
        obs, env_state, outcome = env.step(env_key, state.env_state, env.actions.scale(action))
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
    config: OffPolicyConfig,
    learner: Any,
    replay: Any,
    key: jax.Array,
    gradient_step: GradientStep,
) -> tuple[Any, LossMetrics]:
    """Take `gradient_steps` gradient steps, each on a batch of its own; gives their means too."""
    sample = make_replay(config.buffer_size, config.batch_size).sample

    def step(learner: Any, key: jax.Array) -> tuple[Any, LossMetrics]:
        sample_key, step_key = jax.random.split(key)
        return gradient_step(learner, sample(replay, sample_key).experience, step_key)

    learner, metrics = jax.lax.scan(step, learner, jax.random.split(key, config.gradient_steps))
    return learner, jax.tree.map(jnp.mean, metrics)

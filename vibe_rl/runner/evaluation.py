"""How well an agent does: whole episodes, without exploration, in environments of their own."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vibe_rl.runner.environment import VectorEnv

# An episode that is not over by then counts as far as it has come: some environments have no limit.
MAX_STEPS = 10_000


class Evaluation(NamedTuple):
    """What is logged of an evaluation; each field is a float32 scalar.

    Attributes:
        eval_return_mean: Mean return of the episodes, undiscounted.
        eval_return_std: Standard deviation of the returns.
        eval_length_mean: Mean length of the episodes, in steps.
    """

    eval_return_mean: jax.Array
    eval_return_std: jax.Array
    eval_length_mean: jax.Array


def evaluate(
    act: Callable[[jax.Array], jax.Array], env: VectorEnv, num_episodes: int, key: jax.Array
) -> Evaluation:
    """Play episodes side by side until the last one has ended.

    Args:
        act: Gives the actions for observations, float32 `(num_episodes, obs_size)`.
        env: What to play in.
        num_episodes: How many episodes.
        key: Random key; decides how the episodes begin.

    Returns:
        The evaluation.
    """
    env = dataclasses.replace(env, num_envs=num_episodes)

    class Play(NamedTuple):
        key: jax.Array
        obs: jax.Array
        env_state: Any
        ended: jax.Array
        returns: jax.Array
        lengths: jax.Array

    def goes_on(play: Play) -> jax.Array:
        return ~jnp.all(play.ended) & (jnp.max(play.lengths) < MAX_STEPS)

    def step(play: Play) -> Play:
        key, step_key = jax.random.split(play.key)
        obs, env_state, outcome = env.step(step_key, play.env_state, act(play.obs))
        return Play(
            key,
            obs,
            env_state,
            play.ended | outcome.done,
            play.returns + jnp.where(play.ended, 0.0, outcome.reward),
            play.lengths + jnp.where(play.ended, 0, 1),
        )

    key, reset_key = jax.random.split(key)
    obs, env_state = env.reset(reset_key)
    none = jnp.zeros(num_episodes)
    play = Play(key, obs, env_state, none.astype(bool), none, none.astype(jnp.int32))
    play = jax.lax.while_loop(goes_on, step, play)
    lengths = play.lengths.astype(jnp.float32)
    return Evaluation(jnp.mean(play.returns), jnp.std(play.returns), jnp.mean(lengths))

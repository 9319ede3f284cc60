"""Environments: several copies of one gymnax environment, stepped together."""

import difflib
import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnax
import jax
import jax.numpy as jnp
from gymnax.environments.spaces import Discrete
from gymnax.wrappers.purerl import FlattenObservationWrapper, LogWrapper


class Outcome(NamedTuple):
    """What one step of the environments led to; each field has a leading axis `num_envs`.

    Attributes:
        reward: float32.
        next_obs: float32, `(num_envs, obs_size)`: what the action led to. Where the episode ended
            this is its last observation, not the first of the episode that follows.
        terminated: bool; the episode came to its own end, after which there is no reward.
        done: bool; the episode ended, be it by itself or by its time limit.
        episode_return: float32; sum of the episode's rewards, valid where `done`.
        episode_length: int32; number of the episode's steps, valid where `done`.
    """

    reward: jax.Array
    next_obs: jax.Array
    terminated: jax.Array
    done: jax.Array
    episode_return: jax.Array
    episode_length: jax.Array


# Compared and hashed by identity, so that it can be a static argument of a compiled function.
@dataclass(frozen=True, eq=False)
class VectorEnv:
    """`num_envs` independent copies of an environment that reset themselves.

    Attributes:
        env: The gymnax environment.
        params: Its parameters.
        num_envs: Number of copies.
        num_actions: Actions are the integers from 0 to `num_actions - 1`.
    """

    env: Any
    params: Any
    num_envs: int
    num_actions: int

    def reset(self, key: jax.Array) -> tuple[jax.Array, Any]:
        """Begin an episode in every copy.

        Args:
            key: Random key.

        Returns:
            The first observations, float32 `(num_envs, obs_size)`, and the environments' state.
        """
        keys = jax.random.split(key, self.num_envs)
        obs, state = jax.vmap(self.env.reset, in_axes=(0, None))(keys, self.params)
        return obs.astype(jnp.float32), state

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> tuple[jax.Array, Any, Outcome]:
        """Take one step in every copy; where an episode ends, the next one begins.

        Args:
            key: Random key.
            state: The environments' state.
            action: int, `(num_envs,)`.

        Returns:
            The observations to act on next, float32 `(num_envs, obs_size)`, the environments'
            state, and what the step led to.
        """
        keys = jax.random.split(key, self.num_envs)
        step = jax.vmap(self.env.step, in_axes=(0, 0, 0, None))
        obs, state, reward, terminated, truncated, info = step(keys, state, action, self.params)
        outcome = Outcome(
            reward=reward.astype(jnp.float32),
            next_obs=info["final_observation"].astype(jnp.float32),
            terminated=terminated,
            done=jnp.logical_or(terminated, truncated),
            episode_return=info["returned_episode_returns"],
            episode_length=info["returned_episode_lengths"],
        )
        return obs.astype(jnp.float32), state, outcome


# Cached, because a compiled function is found again by the environment it was compiled for.
@functools.cache
def make_env(env_id: str, num_envs: int) -> VectorEnv:
    """Make `num_envs` copies of a gymnax environment; observations are flattened.

    Args:
        env_id: Id in gymnax's registry.
        num_envs: Number of copies.

    Returns:
        The environments.

    Raises:
        ValueError: If gymnax has no such environment, or its actions are not discrete.
    """
    if env_id not in gymnax.registered_envs:
        ids = {known.lower(): known for known in gymnax.registered_envs}
        near = difflib.get_close_matches(env_id.lower(), ids, n=3)
        some = [ids[match] for match in near] or ["CartPole-v1", "Acrobot-v1", "Breakout-MinAtar"]
        raise ValueError(
            f"unknown environment {env_id!r}; gymnax has {', '.join(some)} and others"
            " (gymnax.registered_envs lists them)"
        )
    env, params = gymnax.make(env_id)
    actions = env.action_space(params)
    if not isinstance(actions, Discrete):
        raise ValueError(  # noqa: TRY004 - the id is a string, but the wrong one
            f"{env_id} has a continuous action space, and only discrete ones are supported;"
            " CartPole-v1 and Acrobot-v1 have one"
        )
    wrapped = LogWrapper(FlattenObservationWrapper(env))
    return VectorEnv(wrapped, params, num_envs, num_actions=int(actions.n))

"""Environments: several copies of one gymnax environment, stepped together."""

import difflib
import functools
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments.spaces import Box, Discrete
from gymnax.wrappers.purerl import FlattenObservationWrapper, LogWrapper


class DiscreteActions(NamedTuple):
    """Actions that are one of `num`: the integers from 0 on; int32 `(num_envs,)`."""

    num: int

    def scale(self, action: jax.Array) -> jax.Array:
        """Like that of `ContinuousActions`; here, there is nothing to scale."""
        return action


class ContinuousActions(NamedTuple):
    """Actions that are real vectors in the environment's own units: float32 `(num_envs, size)`.

    Attributes:
        low: The least value of each component; may be infinite.
        high: The greatest one, likewise.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def size(self) -> int:
        """How many components an action has."""
        return len(self.low)

    def scale(self, action: jax.Array) -> jax.Array:
        """Map [-1, 1] to [low, high]: float32 `(..., size)`; without bounds, nothing changes."""
        bounds = np.array([self.low, self.high], np.float32)
        low, high = np.where(
            np.isfinite(bounds).all(axis=0), bounds, np.array([[-1], [1]], np.float32)
        )
        return jnp.asarray((low + high) / 2 + (high - low) / 2 * action)


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
        env: The environment, with gymnax's interface.
        params: Its parameters.
        num_envs: Number of copies.
        name: What messages and configs call it.
        kind: The environment's class, with its module.
        actions: What actions it takes.
    """

    env: Any
    params: Any
    num_envs: int
    name: str
    kind: str
    actions: DiscreteActions | ContinuousActions

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
            action: One for each copy; see `DiscreteActions` and `ContinuousActions`. Components
                that are out of bounds are brought to the bound.

        Returns:
            The observations to act on next, float32 `(num_envs, obs_size)`, the environments'
            state, and what the step led to.
        """
        if isinstance(self.actions, ContinuousActions):
            action = jnp.clip(action, jnp.array(self.actions.low), jnp.array(self.actions.high))
            action = action.reshape(self.num_envs, *self.env.action_space(self.params).shape)
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


def make_env(env: Any, num_envs: int) -> VectorEnv:
    """Make `num_envs` copies of an environment; observations are flattened.

    Args:
        env: An id in gymnax's registry; or an object with the interface of gymnax 1.0's
            environments; or a pair of such an object and its parameters.
        num_envs: Number of copies.

    Returns:
        The environments; for an id, the same object each time.

    Raises:
        TypeError: If the environment lacks a method or something that its steps must give, or has
            an action space of another kind.
        ValueError: If gymnax has no such environment.
    """
    if isinstance(env, str):
        return _make_by_id(env, num_envs)
    env, params = env if isinstance(env, tuple) else (env, getattr(env, "default_params", None))
    return _wrap(env, params, num_envs, str(getattr(env, "name", type(env).__name__)))


# Cached, because a compiled function is found again by the environment it was compiled for.
@functools.cache
def _make_by_id(env_id: str, num_envs: int) -> VectorEnv:
    if env_id not in gymnax.registered_envs:
        ids = {known.lower(): known for known in gymnax.registered_envs}
        near = difflib.get_close_matches(env_id.lower(), ids, n=3)
        some = [ids[match] for match in near] or ["CartPole-v1", "Acrobot-v1", "Breakout-MinAtar"]
        raise ValueError(
            f"unknown environment {env_id!r}; gymnax has {', '.join(some)} and others"
            " (gymnax.registered_envs lists them)"
        )
    env, params = gymnax.make(env_id)
    return _wrap(env, params, num_envs, env_id)


def _wrap(env: Any, params: Any, num_envs: int, name: str) -> VectorEnv:
    for method in ("reset", "step", "action_space"):
        if not callable(getattr(env, method, None)):
            raise TypeError(
                f"an environment has gymnax's interface, but {env!r:.99} has no {method}();"
                " give a gymnax id, an environment, or a pair (environment, params)"
            )
    space = env.action_space(params)
    actions: DiscreteActions | ContinuousActions
    if isinstance(space, Discrete):
        actions = DiscreteActions(int(space.n))
    elif isinstance(space, Box):
        low, high = (np.broadcast_to(each, space.shape).ravel() for each in (space.low, space.high))
        actions = ContinuousActions(tuple(low.tolist()), tuple(high.tolist()))
    else:
        raise TypeError(f"{name} has actions of {space!r:.99}; supported are Discrete and Box")
    _check_interface(env, params, space, name)
    kind = f"{type(env).__module__}.{type(env).__qualname__}"
    wrapped = LogWrapper(FlattenObservationWrapper(env))
    return VectorEnv(wrapped, params, num_envs, name, kind, actions)


def _check_interface(env: Any, params: Any, space: Discrete | Box, name: str) -> None:
    """Raise unless the first step of an episode gives what those of gymnax 1.0 give."""

    def first_step(key: jax.Array) -> Any:
        begun = env.reset(key, params)
        if not (isinstance(begun, tuple) and len(begun) == 2):
            raise TypeError(f"{name}'s reset() gives no pair (obs, state), but {begun!r:.99}")
        return env.step(key, begun[1], space.sample(key), params)

    step = jax.eval_shape(first_step, jax.random.key(0))
    if not (isinstance(step, tuple) and len(step) == 6):
        gives = f"{len(step)} values" if isinstance(step, tuple) else type(step).__name__
        raise TypeError(
            f"{name}'s step() gives {gives}; that of gymnax 1.0 gives six: obs, state, reward,"
            " terminated, truncated, info"
        )
    if "final_observation" not in step[5]:
        raise TypeError(
            f"{name}'s step() gives no info['final_observation'], what the action led to: where an"
            " episode ends, obs is already of the next one"
        )


def check_actions(
    algorithm: str, env: VectorEnv, *, takes: Literal["discrete", "continuous"]
) -> None:
    """Raise unless an algorithm can act in an environment.

    Args:
        algorithm: What the message calls the algorithm.
        env: The environments.
        takes: The kind of actions that the algorithm is made for; continuous ones need bounds.

    Raises:
        ValueError: If the environment's actions are of the other kind, or unbounded.
    """
    has = "discrete" if isinstance(env.actions, DiscreteActions) else "continuous"
    if has != takes:
        others = "train_ppo or train_dqn" if has == "discrete" else "train_ppo or train_sac"
        raise ValueError(
            f"{algorithm} takes {takes} actions, and those of {env.name} are {has}: use {others}"
        )
    if isinstance(env.actions, ContinuousActions) and not np.isfinite(env.actions).all():
        raise ValueError(
            f"{algorithm} takes actions between bounds, and those of {env.name} have none:"
            " use train_ppo"
        )

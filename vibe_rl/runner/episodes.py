"""Episode statistics, kept on the device."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

WINDOW = 100
"""Number of episodes that `RecentEpisodes` remembers."""


class RecentEpisodes(NamedTuple):
    """The last `WINDOW` episodes that finished.

    Attributes:
        returns: float32 `(WINDOW,)`, oldest first; the last `num_known` are real.
        lengths: float32 `(WINDOW,)`, likewise.
        num_known: int32 scalar; how many have finished, at most `WINDOW`.
    """

    returns: jax.Array
    lengths: jax.Array
    num_known: jax.Array

    @staticmethod
    def none() -> "RecentEpisodes":
        """Before any episode has finished."""
        return RecentEpisodes(jnp.zeros(WINDOW), jnp.zeros(WINDOW), jnp.int32(0))

    def add(self, finished: jax.Array, returns: jax.Array, lengths: jax.Array) -> "RecentEpisodes":
        """Take in the episodes that finished in a stretch of steps.

        Args:
            finished: bool `(num_steps, num_envs)`; where an episode ended.
            returns: float32 `(num_steps, num_envs)`; its return, read where `finished`.
            lengths: int32 `(num_steps, num_envs)`; its length, read where `finished`.

        Returns:
            The last `WINDOW` episodes including these.
        """
        remembered = jnp.arange(WINDOW) >= WINDOW - self.num_known
        real = jnp.concatenate([remembered, finished.ravel()])
        age = jnp.cumsum(real[::-1])[::-1] - 1  # 0 is the newest
        # What is no episode, or too old, goes to a place past the end, where writes are dropped.
        place = jnp.where(real & (age < WINDOW), WINDOW - 1 - age, WINDOW)

        def merge(old: jax.Array, new: jax.Array) -> jax.Array:
            values = jnp.concatenate([old, new.ravel().astype(old.dtype)])
            return jnp.zeros_like(old).at[place].set(values, mode="drop")

        num_known = jnp.minimum(jnp.sum(real, dtype=jnp.int32), WINDOW)
        return RecentEpisodes(merge(self.returns, returns), merge(self.lengths, lengths), num_known)

    def means(self) -> tuple[jax.Array, jax.Array]:
        """Mean return and mean length of the remembered episodes; NaN if there are none yet."""
        return jnp.sum(self.returns) / self.num_known, jnp.sum(self.lengths) / self.num_known

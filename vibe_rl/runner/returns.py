"""How far the returns of an environment spread, which is what its rewards are scaled by.

See "reward scaling" and "reward clipping" in Engstrom et al. 2020, *Implementation Matters in Deep
Policy Gradients* (arXiv:2005.12729).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class ReturnSpread(NamedTuple):
    """Mean and variance of the discounted returns so far, over all steps and environments.

    The return at a step is that of its episode up to there, `R_t = r_t + gamma * R_t-1`.

    Attributes:
        present: float32 `(num_envs,)`; the return so far of the episode that goes on.
        num_seen: float32 scalar; how many returns there were.
        mean: float32 scalar; their mean.
        variance: float32 scalar; their variance.
    """

    present: jax.Array
    num_seen: jax.Array
    mean: jax.Array
    variance: jax.Array

    @staticmethod
    def none(num_envs: int) -> "ReturnSpread":
        """Before the first step."""
        return ReturnSpread(jnp.zeros(num_envs), *jnp.zeros(3))

    def add(self, reward: jax.Array, done: jax.Array, gamma: float) -> "ReturnSpread":
        """Take in a stretch of steps.

        Args:
            reward: float32 `(num_steps, num_envs)`.
            done: bool, like `reward`; where an episode ended.
            gamma: Discount factor.

        Returns:
            The spread including these.
        """

        def forward(
            present: jax.Array, step: tuple[jax.Array, jax.Array]
        ) -> tuple[jax.Array, jax.Array]:
            reward, done = step
            present = reward + gamma * present
            return jnp.where(done, 0.0, present), present

        present, returns = jax.lax.scan(forward, self.present, (reward, done))
        num_seen = self.num_seen + returns.size
        share = returns.size / num_seen
        apart = returns.mean() - self.mean
        # Of two groups together: the variance within them, and that between their means.
        variance = (1.0 - share) * (self.variance + share * apart**2) + share * returns.var()
        return ReturnSpread(present, num_seen, self.mean + share * apart, variance)

    def scale(self, reward: jax.Array) -> jax.Array:
        """Divide rewards by the returns' standard deviation, and clip them to [-10, 10].

        They are so large only while the returns hardly differ, as in episodes of one step that all
        pay the same. The bound, and the 1e-8 below, are those of Stable-Baselines3's VecNormalize.
        """
        return jnp.clip(reward * jax.lax.rsqrt(self.variance + 1e-8), -10.0, 10.0)

"""The spread of discounted returns against a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vibe_rl.runner.returns import ReturnSpread


def test_the_spread_is_that_of_all_returns_so_far():
    rng = np.random.default_rng(0)
    reward, done = rng.normal(3.0, 2.0, size=(60, 4)), rng.random((60, 4)) < 0.1
    present, returns = np.zeros(4), []
    for row, ends in zip(reward, done, strict=True):
        present = row + 0.9 * present
        returns.append(present.copy())
        present[ends] = 0.0

    spread = ReturnSpread.none(4)
    add = jax.jit(ReturnSpread.add)
    for part in np.split(np.arange(60), [1, 7, 30]):  # parts of unlike sizes
        spread = add(spread, jnp.asarray(reward[part]), jnp.asarray(done[part]), 0.9)
    assert spread.num_seen == 240
    assert spread.mean == pytest.approx(np.mean(returns), rel=1e-4)
    assert spread.variance == pytest.approx(np.var(returns), rel=1e-4)
    np.testing.assert_allclose(spread.present, present, rtol=1e-4)
    np.testing.assert_allclose(spread.scale(jnp.array([2.0])), [2.0 / np.std(returns)], rtol=1e-4)


def test_returns_that_are_all_alike_scale_to_finite_rewards():
    spread = ReturnSpread.none(2).add(jnp.zeros((5, 2)), jnp.zeros((5, 2), bool), 0.99)
    np.testing.assert_array_equal(spread.scale(jnp.zeros(3)), np.zeros(3))
    ones, ends = jnp.ones((5, 2)), jnp.ones((5, 2), bool)
    spread = ReturnSpread.none(2).add(ones, ends, 0.99)
    np.testing.assert_array_equal(spread.scale(jnp.array([1.0, -1.0])), [10.0, -10.0])

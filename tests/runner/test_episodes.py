from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vibe_rl.runner.episodes import RecentEpisodes


def test_there_is_no_mean_before_the_first_episode():
    assert all(np.isnan(mean) for mean in RecentEpisodes.none().means())


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 1.0])
def test_it_remembers_what_a_deque_of_100_would(share):
    rng = np.random.default_rng(0)
    episodes, expected = RecentEpisodes.none(), deque(maxlen=100)
    add = jax.jit(RecentEpisodes.add)
    for _ in range(8):
        finished = rng.random((20, 8)) < share
        returns = rng.normal(size=(20, 8)).astype(np.float32)
        lengths = rng.integers(1, 500, size=(20, 8))
        episodes = add(episodes, jnp.asarray(finished), jnp.asarray(returns), jnp.asarray(lengths))
        expected.extend(zip(returns[finished], lengths[finished], strict=True))

        assert episodes.num_known == len(expected)
        if expected:
            known = list(zip(episodes.returns, episodes.lengths, strict=True))[-len(expected) :]
            np.testing.assert_array_equal(np.array(known), np.array(expected))
            np.testing.assert_allclose(episodes.means(), np.mean(expected, axis=0), rtol=1e-4)

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vibe_rl.metrics import downsample


@given(st.lists(st.floats(), max_size=300), st.integers(3, 60))
def test_extremes_and_gaps_stay_and_points_keep_their_order(heights, n):
    y = np.array(heights, float)
    kept_x, kept = downsample(np.arange(len(y)), y, n)
    assert len(kept) <= max(n, 3)
    assert (np.diff(kept_x) > 0).all()
    assert np.array_equal(kept, y[kept_x.astype(int)], equal_nan=True)
    numbers = y[~np.isnan(y)]
    if len(numbers):
        assert (np.nanmin(kept), np.nanmax(kept)) == (numbers.min(), numbers.max())
    assert np.isnan(kept).any() == np.isnan(y).any()
    if len(y) <= n:
        assert len(kept) == len(y)


def test_each_stretch_keeps_its_own_spike():
    y = np.zeros(100_000)
    spikes = np.arange(500, 100_000, 1_000)
    y[spikes] = np.where(spikes % 2_000 == 500, 1.0, math.inf)
    x, kept = downsample(np.arange(len(y)), y, 300)
    assert set(spikes) <= set(x.astype(int))
    assert len(kept) <= 300


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="at least 3, not 2"):
        downsample([1, 2, 3], [1, 2, 3], 2)
    with pytest.raises(ValueError, match="one length"):
        downsample([1, 2, 3], [1, 2], 5)

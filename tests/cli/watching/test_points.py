"""A curve of many points in bounded memory: its extremes, and its true means."""

import math

import numpy as np
import pytest

from vibe_rl.cli.watching.points import _MOST_POINTS, Points


def points(y, steps=None, walls=None):
    made = Points()
    for nth, value in enumerate(y):
        step = nth if steps is None else steps[nth]
        made.add(step, nth if walls is None else walls[nth], value)
    return made


@pytest.mark.parametrize("window", [10, 100, 1000])
@pytest.mark.parametrize("count", [20_000, 200_000])
def test_the_mean_is_that_of_the_records_however_many_were_thinned_out(window, count):
    y = np.random.default_rng(0).exponential(size=count)
    x, smooth = points(y).curve("step", window)
    assert len(x) <= _MOST_POINTS
    # Where most points are left, the oldest ones stand for more records each.
    assert smooth[len(smooth) // 10 :].mean() == pytest.approx(1.0, abs=0.05)
    assert np.mean(np.abs(smooth[-100:] - 1)) < 4 / math.sqrt(window)


def test_rare_spikes_weigh_what_they_are():
    spikes = np.where(np.arange(100_000) % 50 == 0, 100.0, 0.0)
    assert points(spikes).curve("step", 1000)[1][-1] == pytest.approx(2.0, rel=0.1)


def test_the_extremes_and_the_gaps_stay():
    y = np.zeros(100_000)
    y[[1234, 77_777, 90_000]] = 9, -9, math.nan
    x, kept = points(y).curve("step")
    assert (x[kept == 9].tolist(), x[kept == -9].tolist()) == ([1234], [77_777])
    assert x[np.isnan(kept)].tolist() == [90_000]


def test_a_huge_value_is_forgotten_after_the_window():
    y = [1.0, 1e30, *[1.0] * 20]
    assert points(y).curve("step", 10)[1][12:].tolist() == [1.0] * 10
    assert np.isfinite(points([1e308] * 20).curve("step", 10)[1]).all()


def test_the_mean_is_of_finite_values_up_to_each():
    y = [1.0, 3.0, math.nan, 5.0, math.inf, 7.0]
    np.testing.assert_array_equal(points(y).curve("step", 2)[1], [1, 2, math.nan, 4, math.inf, 6])


def test_a_point_that_is_nowhere_is_passed_over_on_that_axis():
    made = points([1.0, 2.0, 3.0], steps=[0, math.nan, 2], walls=[0, 1, math.inf])
    assert made.curve("step")[1].tolist() == [1, 3]
    assert made.curve("wall_time")[1].tolist() == [1, 2]


def test_of_repeated_steps_the_newest_counts_and_all_times_do():
    made = points([1.0, 2.0, 3.0], steps=[0, 1, 0], walls=[5, 5, 6])
    assert [column.tolist() for column in made.curve("step")] == [[0, 1], [3, 2]]
    assert [column.tolist() for column in made.curve("wall_time")] == [[5, 5, 6], [1, 2, 3]]

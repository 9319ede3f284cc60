"""Charts of any numbers that there are."""

import numpy as np
import pytest

from vibe_rl.cli.watching.chart import Line, draw, ticks

HIGHS = [0, 1, -1, 1.797e308, -1e308, 1e-308, 5e-324, 1e15, 1e15 + 1, 1e-12, 3, 3, 3]
PLACES = [0, 1, 2, 1e15, 1e15 + 2, -7, 1e18, 1e300, 5e-324, -1e308, 1e308]


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.filterwarnings("error")
def test_no_number_is_too_much(log):
    draws = np.random.default_rng(0)
    for _ in range(300):
        n = draws.integers(1, 7)
        x = np.sort(draws.choice(PLACES, n))
        y = draws.choice([*HIGHS, np.nan, np.inf, -np.inf], n)
        width, height = int(draws.choice([20, 80, 200])), int(draws.choice([3, 10, 24]))
        chart = draw([Line(x, y, (1, 2, 3))], width, height, log=log).plain
        assert "└" not in chart or max(map(len, chart.splitlines())) <= width


@pytest.mark.parametrize("height", [8, 9, 10, 11, 24])
def test_the_greatest_and_the_least_are_seen(height):
    x = np.arange(100.0)
    lines = [Line(x, np.full(100, value), (1, 2, 3)) for value in (100.0, 0.0)]
    *rows, _, _ = draw(lines, 80, height).plain.splitlines()
    assert [nth for nth, row in enumerate(rows) if row[9:].strip("⠀ ")] == [0, len(rows) - 1]
    assert "100 ┤" in rows[0]


@pytest.mark.parametrize(
    ("low", "high"), [(-1.79e308, 1.79e308), (0, 1e-280), (1e308, 1.7e308), (0.0, 0.3), (-5, 1e300)]
)
def test_ticks_are_few_and_within(low, high):
    found = ticks(low, high, 5)
    assert 2 <= len(found) <= 11
    assert all(low <= tick <= high for tick in found)


@pytest.mark.parametrize("log", [False, True])
def test_the_smallest_numbers_have_a_chart(log):
    y = np.array([0.0, 5e-324])
    assert "┤" in draw([Line(np.arange(2.0), y, (1, 2, 3))], 80, 20, log=log).plain or log

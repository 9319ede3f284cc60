"""One curve of several seeds' curves: on common steps, a centre and a band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vibe_rl.metrics import downsample

Floats = NDArray[np.float64]
Center = Literal["mean", "median", "iqm"]
Band = Literal["se", "ci", "range", "none"]

# A line has no more points: more than a page's width has dots.
POINTS = 1000
_RESAMPLES = 1000
# From here on, a sum of a few may be none, nor can matplotlib make an axis of them.
_INFINITE = 1e300


@dataclass(frozen=True)
class Curve:
    """A line over several seeds.

    Attributes:
        x: Where its points are.
        y: The centre; NaN, a gap, where any seed is not finite.
        low: The band's lower edge; the centre itself without a band.
        high: The band's upper edge.
        seeds: How many curves went into it.
        nonfinite: Where any of them is NaN or infinite, or nearly so: beyond 1e300.

    Examples:
        >>> steps = np.arange(3.0)
        >>> curve = aggregate([(steps, np.zeros(3)), (steps, np.array([1, np.nan, 1]))])
        >>> curve.y, curve.nonfinite, curve.seeds
        (array([0.5, nan, 0.5]), array([1.]), 2)
    """

    x: Floats
    y: Floats
    low: Floats
    high: Floats
    seeds: int
    nonfinite: Floats


def aggregate(
    curves: Sequence[tuple[Floats, Floats]],
    *,
    center: Center = "mean",
    band: Band = "se",
    smooth: int = 1,
) -> Curve:
    """Make one curve of several seeds'.

    Seeds that were logged at the same steps meet there. Others are interpolated on 1,000 steps
    evenly spread over those that all have, after taking means of what is between two of these. A
    single curve is only thinned out, and keeps its extremes.

    Args:
        curves: Each seed's x, ascending, and y.
        center: The mean, the median, or the interquartile mean: that of the middle half.
        band: The standard error, the bootstrap's 95 % confidence interval, from the least to the
            greatest, or none.
        smooth: How many records a moving average is over; 1 is none. It is centred, and narrower
            at the ends.

    Returns:
        The curve.

    Raises:
        ValueError: If there are no curves, or they have no steps in common; or for a standard
            error of what is no mean.

    Examples:
        >>> steps = np.arange(3.0)
        >>> aggregate([(steps, np.zeros(3)), (steps, np.ones(3))]).y
        array([0.5, 0.5, 0.5])
    """
    check_band(center, band)
    if not curves or not all(len(x) for x, _ in curves):
        raise ValueError("there is no curve to draw: a seed has no values")
    # An infinity would be smeared over its neighbours as well; both are marked.
    parts = [(x, np.where(np.abs(y) < _INFINITE, y, np.nan)) for x, y in curves]
    nonfinite = np.unique(np.concatenate([x[np.isnan(y)] for x, y in parts]))
    finite = [(x, _moving_average(y, smooth)) for x, y in parts]
    if len(finite) == 1:
        x, y = downsample(*finite[0], 3 * POINTS)
        return Curve(x, y, y, y, 1, nonfinite)
    grid = _common_grid([x for x, _ in finite])
    values = np.stack([_on_grid(grid, x, y) for x, y in finite])
    y = _center(values, center)
    low, high = _band(values, y, center, band)
    return Curve(grid, y, low, high, len(curves), nonfinite)


def check_band(center: Center, band: Band) -> None:
    """Refuse a standard error of what is no mean.

    Raises:
        ValueError: In that case.
    """
    if band == "se" and center != "mean":
        raise ValueError(f"a standard error is the mean's, not the {center}'s; take the band ci")


def _moving_average(y: Floats, window: int) -> Floats:
    if window <= 1:
        return y
    # Sums of the numbers and of the gaps apart, so that a gap stays as wide as the window.
    before, after = (window - 1) // 2, window // 2
    ends = np.clip(np.arange(len(y)) + after + 1, 0, len(y))
    starts = np.clip(np.arange(len(y)) - before, 0, len(y))
    gaps = np.isnan(y)
    sums = np.concatenate([[0.0], np.cumsum(np.where(gaps, 0.0, y))])
    missing = np.concatenate([[0], np.cumsum(gaps)])
    means: Floats = (sums[ends] - sums[starts]) / (ends - starts)
    return np.where(missing[ends] > missing[starts], np.nan, means)


def _common_grid(xs: list[Floats]) -> Floats:
    first = xs[0]
    if len(first) <= POINTS and all(np.array_equal(x, first) for x in xs):
        return first
    low, high = max(x[0] for x in xs), min(x[-1] for x in xs)
    if low > high:
        raise ValueError(
            f"the seeds have no steps in common: one begins at {low}, one ends at {high}"
        )
    return np.linspace(low, high, min(POINTS, max(map(len, xs))))


def _on_grid(grid: Floats, x: Floats, y: Floats) -> Floats:
    inside = (x >= grid[0]) & (x <= grid[-1])
    if len(grid) > 1 and inside.sum() > 2 * len(grid):
        cells = np.searchsorted((grid[1:] + grid[:-1]) / 2, x[inside])
        counts = np.bincount(cells, minlength=len(grid))
        filled = counts > 0
        x = np.bincount(cells, x[inside], len(grid))[filled] / counts[filled]
        y = np.bincount(cells, y[inside], len(grid))[filled] / counts[filled]
    return np.interp(grid, x, y)


def _center(values: Floats, center: Center) -> Floats:
    if center == "mean":
        return np.asarray(values.mean(axis=0))
    if center == "median":
        return np.asarray(np.median(values, axis=0))
    cut = len(values) // 4
    return np.asarray(np.sort(values, axis=0)[cut : len(values) - cut].mean(axis=0)) + _gaps(values)


def _gaps(values: Floats) -> Floats:
    """NaN where any seed has it, for sorting puts NaN last, where it may be cut off; else 0."""
    return np.where(np.isnan(values).any(axis=0), np.nan, 0.0)


def _band(values: Floats, y: Floats, center: Center, band: Band) -> tuple[Floats, Floats]:
    if band == "none":
        return y, y
    if band == "se":
        error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
        return y - error, y + error
    if band == "range":
        return values.min(axis=0), values.max(axis=0)
    draw = np.random.default_rng(0)  # the same figure each time
    seeds = len(values)
    resampled = [
        _center(values[draw.integers(seeds, size=seeds)], center) for _ in range(_RESAMPLES)
    ]
    low, high = np.quantile(np.stack(resampled), [0.025, 0.975], axis=0)
    return low + _gaps(values), high + _gaps(values)

"""A curve of millions of points in a few thousand, with every spike in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def downsample(x: ArrayLike, y: ArrayLike, n: int) -> tuple[Floats, Floats]:
    """Thin a curve out so that it looks the same: the extremes of each stretch are kept.

    The points are cut into stretches of equal number. Of each, the lowest and the highest point
    stay, infinities included, and one NaN if there is any: a gap in the curve stays a gap.

    Args:
        x: Where the points are, in the order in which they are drawn.
        y: Their heights, as many.
        n: The most points to keep, at least 3.

    Returns:
        The points that stay, in their order; all of them if there are at most `n`.

    Raises:
        ValueError: If `n` is less than 3, or `x` and `y` are not of one length.

    Examples:
        >>> x, y = downsample(range(1000), [0.0] * 500 + [9.0] + [0.0] * 499, 30)
        >>> len(x) <= 30, y.max()
        (True, np.float64(9.0))
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"x and y are two rows of one length, not of {x.shape} and {y.shape}")
    if n < 3:
        raise ValueError(f"n is a number of points, at least 3, not {n}")
    if len(y) <= n:
        return x, y
    buckets = n // 3  # of which each keeps three points at most
    edges = np.linspace(0, len(y), buckets + 1).astype(int)
    kept = set[int]()
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        part = y[start:stop]
        missing = np.isnan(part)
        if missing.any():
            kept.add(start + int(missing.argmax()))
        if not missing.all():
            kept.add(start + int(np.nanargmin(part)))
            kept.add(start + int(np.nanargmax(part)))
    places = np.array(sorted(kept))
    return x[places], y[places]

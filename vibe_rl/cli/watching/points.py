"""One curve's points, as many as they become, in bounded memory."""

from __future__ import annotations

import math
from array import array

import numpy as np
from numpy.typing import NDArray

from vibe_rl.metrics.reading.downsampling import downsample
from vibe_rl.metrics.reading.series import ascending

Floats = NDArray[np.float64]

# A curve of more points is thinned out to half as many, its extremes kept.
_MOST_POINTS = 1 << 15


class Points:
    """One curve's points, in the order in which they came.

    Each that is left after thinning out stands for those before it, too: it keeps their sum and
    their number, for a mean of extremes would be no mean.
    """

    def __init__(self) -> None:
        self.count = 0
        self._step, self._wall, self._y = array("d"), array("d"), array("d")
        self._sum, self._number = array("d"), array("d")

    def add(self, step: float, wall: float, y: float) -> None:
        """Add a point: its height, and where it is on either axis, NaN if nowhere."""
        self.count += 1
        is_finite = math.isfinite(y)
        self._step.append(step)
        self._wall.append(wall)
        self._y.append(y)
        self._sum.append(y if is_finite else 0.0)
        self._number.append(1.0 if is_finite else 0.0)
        if len(self._y) > _MOST_POINTS:
            self._thin_out()

    def curve(self, x: str, window: int = 1) -> tuple[Floats, Floats]:
        """The curve over an axis, `"step"` or `"wall_time"`, in its order.

        Args:
            x: The axis. Of several points at a step, the newest counts.
            window: Each finite point is the mean of so many finite values up to it.
        """
        xs = np.array(self._step if x == "step" else self._wall)
        there = np.flatnonzero(np.isfinite(xs))
        places = there[ascending(xs[there], repeated=x != "step")]
        y = np.array(self._y)[places]
        if window > 1 and len(y):
            y = _smooth(y, np.array(self._sum)[places], np.array(self._number)[places], window)
        return xs[places], y

    def _thin_out(self) -> None:
        places = downsample(range(len(self._y)), self._y, _MOST_POINTS // 2)[0].astype(int)
        starts = np.append(0, places[:-1] + 1)
        self._step, self._wall, self._y = (
            array("d", np.asarray(column)[places]) for column in (self._step, self._wall, self._y)
        )
        self._sum, self._number = (
            array("d", np.add.reduceat(np.asarray(column), starts))
            for column in (self._sum, self._number)
        )


def _smooth(y: Floats, sums: Floats, numbers: Floats, window: int) -> Floats:
    ends = np.arange(1, len(y) + 1)
    so_far = np.cumsum(numbers)
    # As many points as stand for the values before the window are left out.
    starts = np.minimum(np.searchsorted(so_far, so_far - window, side="right"), ends - 1)
    # Each sum by itself: of cumulative ones, a single 1e30 would swallow what follows.
    edges = np.stack([starts, ends], axis=1).ravel()
    with np.errstate(all="ignore"):  # the sum of two floats may be none
        total = np.add.reduceat(np.append(sums, 0.0), edges)[::2]
        number = np.add.reduceat(np.append(numbers, 0.0), edges)[::2]
        means = total / number
    return np.where(np.isfinite(y) & np.isfinite(means), means, y)

"""A run as it grows: the newest state of every curve, in bounded memory."""

from __future__ import annotations

import math
import time
from array import array
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vibe_rl.cli.fields import LABELS, is_number, metrics_of
from vibe_rl.cli.select import metrics_files, run_name
from vibe_rl.metrics.alarms import Alarm, read_alarms
from vibe_rl.metrics.reading.downsampling import downsample
from vibe_rl.metrics.reading.state import RunState, run_state
from vibe_rl.metrics.reading.tail import Sample, sample_records

Floats = NDArray[np.float64]
XAxis = Literal["step", "wall_time"]
Label = str
"""What tells curves of one metric in one run apart: a seed, a lane, a process; "" without."""

# Of what a larger file holds at first, about as much is read: some 40,000 records, at once.
_MOST_BYTES = 1 << 22
# A curve of more points is thinned out to half as many, its extremes kept.
_MOST_POINTS = 1 << 15


class LiveRun:
    """A run's curves, up to the last look at it.

    Args:
        path: The run's directory or metrics file; it need not be there yet.
        most_bytes: About how much of a file to read at each look.
    """

    def __init__(self, path: Path, most_bytes: int = _MOST_BYTES) -> None:
        self.path = path
        self.name = run_name(path)
        self.error = ""  # why it can't be read
        self._most_bytes = most_bytes
        self._begin()

    def _begin(self) -> None:
        """Forget what was read: nothing yet, or of a file that another has taken the place of."""
        self.state = RunState("unknown")
        self.fraction = 1.0
        self.bytes = 0
        self.alarms: list[Alarm] = []
        self.step: float | None = None
        self.came: float | None = None  # when there last was something new, by time.monotonic()
        self._samples: dict[Path, Sample] = {}
        self._walls: dict[Path, tuple[float, float]] = {}  # the newest, and what to add to it
        self._points: dict[str, dict[Label, _Points]] = {}
        self._nonfinite: dict[str, tuple[int, float | None, float]] = {}

    @property
    def metrics(self) -> list[str]:
        """The names of the numeric metrics that have come so far."""
        return list(self._points)

    def look(self) -> bool:
        """Read what is new, and say whether anything is; `error` says why, if it can't be."""
        try:
            is_new = self._look()
        except OSError as error:
            self.error = f"unreadable: {error}"
            return False
        self.error = "its files are gone" if self._samples and not metrics_files(self.path) else ""
        return is_new

    def _look(self) -> bool:
        state, self.state = self.state, run_state(self.path)
        alarms, self.alarms = self.alarms, read_alarms(self.path)
        is_new = (state, alarms) != (self.state, self.alarms)
        for file in metrics_files(self.path):
            last = self._samples.get(file, Sample([]))
            sample = sample_records(file, self._most_bytes, start=last.end, file_id=last.file_id)
            if sample.anew:
                self._begin()
                return self._look()
            self._samples[file] = sample
            self.fraction = min(self.fraction, sample.fraction)
            for record in sample.records:
                self._take(record, file)
            is_new = is_new or bool(sample.records)
            if sample.records:
                self.came = time.monotonic()
        self.bytes = sum(sample.end for sample in self._samples.values())
        return is_new

    def curves(self, metric: str, x: XAxis) -> dict[Label, tuple[Floats, Floats]]:
        """A metric's curves by what tells them apart, each in the order of x.

        Where a step has been logged twice, by a run that was resumed, the newer value counts.
        """
        return {label: points.curve(x) for label, points in self._points.get(metric, {}).items()}

    def nonfinite(self, metric: str) -> tuple[int, float | None, float] | None:
        """How many values of a metric aren't finite; the first one's step, and the value."""
        return self._nonfinite.get(metric)

    def _take(self, record: dict[str, Any], file: Path) -> None:
        step, wall = record.get("step"), record.get("wall_time")
        last, offset = self._walls.get(file, (0.0, 0.0))
        if is_number(wall):
            # A logger's time begins at 0: this one has taken over from another.
            offset += last if wall < 0.5 * last else 0.0
            last = wall
            self._walls[file] = last, offset
        label = " ".join([f"{name} {record[name]}" for name in LABELS if name in record])
        for metric, value in metrics_of(record).items():
            points = self._points.setdefault(metric, {}).setdefault(label, _Points())
            x = float(step) if is_number(step) else points.count
            points.add(x, last + offset, value)
            if not math.isfinite(value):
                count, first, which = self._nonfinite.get(metric, (0, x, value))
                self._nonfinite[metric] = count + 1, first, which
        if is_number(step):
            self.step = step


class _Points:
    """One curve's points, in the order in which they came."""

    def __init__(self) -> None:
        self.count = 0
        self._step, self._wall, self._y = array("d"), array("d"), array("d")

    def add(self, step: float, wall: float, y: float) -> None:
        self.count += 1
        self._step.append(step)
        self._wall.append(wall)
        self._y.append(y)
        if len(self._y) > _MOST_POINTS:
            places = downsample(range(len(self._y)), self._y, _MOST_POINTS // 2)[0].astype(int)
            self._step, self._wall, self._y = (
                array("d", np.asarray(column)[places])
                for column in (self._step, self._wall, self._y)
            )

    def curve(self, x: XAxis) -> tuple[Floats, Floats]:
        xs = np.array(self._step if x == "step" else self._wall)
        order = np.argsort(xs, kind="stable")
        xs, ys = xs[order], np.array(self._y)[order]
        newest = np.append(xs[1:] != xs[:-1], True) if x == "step" else slice(None)
        return xs[newest], ys[newest]

"""A run as it grows: the newest state of every curve, in bounded memory."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, Literal

from vibe_rl.cli.select import metrics_files, run_name
from vibe_rl.cli.watching.points import Floats, Points
from vibe_rl.metrics.alarms import Alarm, read_alarms
from vibe_rl.metrics.reading.fields import TrainingTime, is_number, label_of, metrics_of
from vibe_rl.metrics.reading.state import RunState, run_state
from vibe_rl.metrics.reading.tail import Sample, sample_records

XAxis = Literal["step", "wall_time"]
Label = str
"""What tells curves of one metric in one run apart: a seed, a lane, a process; "" without."""

# Of what a larger file holds at first, about as much is read: some 40,000 records, at once.
_MOST_BYTES = 1 << 22


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
        self.state: RunState | None = None  # before it has been looked at
        self.bytes = 0
        self._bytes_read = 0.0
        self.alarms: list[Alarm] = []
        self.step: float | None = None
        self.came: float | None = None  # when there last was something new, by time.monotonic()
        self._samples: dict[Path, Sample] = {}
        self._times: dict[tuple[Path, Label], TrainingTime] = {}
        self._points: dict[str, dict[Label, Points]] = {}
        self._nonfinite: dict[str, tuple[int, float | None, float]] = {}

    @property
    def metrics(self) -> list[str]:
        """The names of the numeric metrics that have come so far."""
        return list(self._points)

    @property
    def fraction(self) -> float:
        """How much was read of what there has been to read; 1.0 is all."""
        return self._bytes_read / self.bytes if self.bytes else 1.0

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
            self.bytes += sample.end - last.end
            self._bytes_read += (sample.end - last.end) * sample.fraction
            for record in sample.records:
                self._take(record, file)
            is_new = is_new or bool(sample.records)
            if sample.records:
                self.came = time.monotonic()
        return is_new

    def curves(self, metric: str, x: XAxis, window: int = 1) -> dict[Label, tuple[Floats, Floats]]:
        """A metric's curves by what tells them apart; see `Points.curve`."""
        found = self._points.get(metric, {})
        return {label: points.curve(x, window) for label, points in found.items()}

    def nonfinite(self, metric: str) -> tuple[int, float | None, float] | None:
        """How many values of a metric aren't finite; the first one's step, and the value."""
        return self._nonfinite.get(metric)

    @property
    def nonfinite_metrics(self) -> list[str]:
        """The names of the metrics that weren't finite in what has been read."""
        return list(self._nonfinite)

    def _take(self, record: dict[str, Any], file: Path) -> None:
        step, label = record.get("step"), label_of(record)
        time = self._times.setdefault((file, label), TrainingTime()).at(record.get("wall_time"))
        for metric, value in metrics_of(record).items():
            points = self._points.setdefault(metric, {}).setdefault(label, Points())
            x = float(step) if is_number(step) else points.count
            points.add(x, time, value)
            if not math.isfinite(value):
                count, first, which = self._nonfinite.get(metric, (0, x, value))
                self._nonfinite[metric] = count + 1, first, which
        if is_number(step) and math.isfinite(step):
            self.step = step

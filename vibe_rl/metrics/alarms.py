"""Alarms: a run's first non-finite numbers, and what a user's own check finds."""

from __future__ import annotations

import contextlib
import logging
import os
import time
import traceback
from collections.abc import Callable, Container, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from vibe_rl.atomic import write_atomically
from vibe_rl.metrics.append import MetricsFile, NoFile, is_time
from vibe_rl.metrics.reading.blocks import metrics_files
from vibe_rl.metrics.reading.nonfinite import first_nonfinite, marked_lines, step_of
from vibe_rl.run_dir import RunDir

_log = logging.getLogger("vibe_rl")

Alert = Callable[[dict[str, Any]], str | None]
"""A check of one record: what is wrong with it, or None."""

# A check whose every message differs is noted so often.
_MOST_ALERTS = 1000
# The field of an alarm that makes way, with the inode of the metrics file that lacks its record.
_GONE = "gone"


@dataclass(frozen=True)
class Alarm:
    """What a logger has warned of.

    Attributes:
        message: The warning.
        metric: The metric that is not finite; None for what a user's check found.
        step: The record's step; None if it has none.
        time: When, in seconds since the epoch.
        after: Of what a check found: the last step that it had seen, whose fate a record without
            one shares.
    """

    message: str
    metric: str | None
    step: float | None
    time: float
    after: float | None = None

    def is_past(self, step: float, there: Container[str]) -> bool:
        """Whether it is of a record past a step, as far as can be known.

        Args:
            step: The step.
            there: The metrics that are not finite in records up to it.
        """
        known = _number(self.step, _number(self.after, None))
        if known is None:
            return self.metric is not None and self.metric not in there
        return known > step


class NonFiniteAlarm:
    """Appends to a metrics file, and warns of the first non-finite value of each metric in it.

    Args:
        file: The file.
    """

    def __init__(self, file: MetricsFile | NoFile) -> None:
        self._file = file
        # What loggers before this one have warned of, unless of a file that was here before.
        noted = _noted(file.path) if file.start_byte else []
        self._seen = {alarm.metric for alarm in noted}

    def append(self, lines: memoryview) -> int:
        """See `MetricsFile.append`."""
        done = self._file.append(lines)
        text = lines.obj  # all of the burst, if these are its rest
        if isinstance(text, bytes):
            for start, end, values in marked_lines(text):
                for name, value in values:
                    if name not in self._seen:
                        self._seen.add(name)
                        try:
                            self._warn(name, value, step_of(text[start:end]))
                        except Exception:  # noqa: BLE001 - a logging handler's; they have landed
                            traceback.print_exc()
        return done

    def _warn(self, name: str, value: float, step: float | None) -> None:
        message = f"{name} is {value}" + ("" if step is None else f" at step {step}")
        _log.warning("%s; further values of it that are not finite aren't mentioned", message)
        _note(self._file.path, Alarm(message, name, step, time.time()))


class AlertBackend:
    """A user's check as a backend: it gets each record on a thread that the loop doesn't wait for.

    Args:
        alert: The check.
        path: The metrics file.

    Raises:
        TypeError: If it can't be called.
    """

    name = "alert"

    def __init__(self, alert: Alert, path: Path) -> None:
        if not callable(alert):
            raise TypeError(f"alert is a function of a record, not {alert!r}")
        self._alert = alert
        self._path = path
        self._said: set[str] = set()
        self._errors: set[type[Exception]] = set()
        self._last: float | None = None

    def log(self, record: dict[str, Any], step: int | None = None) -> None:
        """Check a record, and warn of what is wrong, once in these words."""
        step = record.get("step", step)
        self._last = _number(step, self._last)
        message = self._check(record)
        if message is None or message in self._said or len(self._said) >= _MOST_ALERTS:
            return
        self._said.add(message)
        _log.warning("alert: %s%s", message, "" if step is None else f" (step {step})")
        _note(self._path, Alarm(message, None, step, time.time(), self._last))

    def close(self) -> None:
        """Do nothing."""

    def _check(self, record: dict[str, Any]) -> str | None:
        """What the check says; None if it raises, for another try would give the same error."""
        try:
            message = self._alert(record)
            if not isinstance(message, str | None):
                raise TypeError(f"alert returns a text or None, not {message!r}")  # noqa: TRY301 - as the check's own
        except Exception as error:  # noqa: BLE001 - it is the user's, and harms nobody else
            if type(error) not in self._errors:
                self._errors.add(type(error))
                _log.error(
                    "alert raised %s at step %s; such records are passed over",
                    type(error).__name__,
                    record.get("step"),
                    exc_info=error,
                )
            return None
        return message


def read_alarms(run: str | os.PathLike[str] | RunDir) -> list[Alarm]:
    """Give what a run's loggers have warned of, in order; cheap.

    Args:
        run: The metrics file, a run's directory, or a `RunDir`.
    """
    return [alarm for file in metrics_files(run) for alarm in _noted(file)]


def alarms_path(path: Path) -> Path:
    """The file beside a metrics file that keeps its alarms: `metrics.alarms.jsonl`."""
    return path.with_name(f"{path.name.removesuffix('.jsonl')}.alarms.jsonl")


@contextlib.contextmanager
def alarms_superseded(path: Path, replacement: Path, superseded: Path, step: int) -> Iterator[None]:
    """Have the alarms of records past a step make way, as their records do.

    Killed at any moment, the alarms are those of the file that has the name then.

    Args:
        path: The metrics file.
        replacement: The file without the records past the step, about to be renamed to that.
        superseded: The file that keeps these records; what was warned of them is noted beside it.
        step: The step.
    """
    if not alarms_path(path).exists():
        yield
        return
    mark = {_GONE: replacement.stat().st_ino}
    there = first_nonfinite(replacement)
    lines, gone = [], []
    for line in _standing(path):
        alarm = _alarm(line)
        if alarm is None or not alarm.is_past(step, there):
            lines.append(line)
            continue
        gone.append(line)
        lines.append(_line({**asdict(alarm), **mark}))
        if alarm.metric in there:  # at an earlier step, though it was logged later
            lines.append(_line(_of_what_is_there(alarm, there[alarm.metric].step)))
    if gone:
        with alarms_path(superseded).open("ab") as file:
            file.writelines(gone)
    # Also if none goes: the marks that a kill has left would be of a wrong file then.
    write_atomically(alarms_path(path), b"".join(lines))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the marks say the same
            sweep_alarms(path)


def sweep_alarms(path: Path) -> None:
    """Take out of the file the alarms that hold no more, which a kill may have left there."""
    if alarms_path(path).exists():
        standing = b"".join(_standing(path))
        if standing != alarms_path(path).read_bytes():
            write_atomically(alarms_path(path), standing)


def _of_what_is_there(alarm: Alarm, step: float | None) -> Alarm:
    where = "" if step is None else f" at step {step}"
    return replace(alarm, message=f"{alarm.metric} is not finite{where}", step=step)


def _number(step: Any, otherwise: float | None) -> float | None:
    return step if type(step) in (int, float) else otherwise


def _noted(path: Path) -> list[Alarm]:
    """The alarms of one metrics file, of a job's just this one."""
    return [alarm for line in _standing(path) if (alarm := _alarm(line))]


def _standing(path: Path) -> Iterator[bytes]:
    """The lines of those that hold, with lines that are none of ours."""
    with contextlib.suppress(FileNotFoundError), alarms_path(path).open("rb") as file:
        gone = b'"%b":%d}' % (_GONE.encode(), path.stat().st_ino if path.exists() else -1)
        for line in file:
            if not line.rstrip().endswith(gone):
                yield line


def _alarm(line: bytes) -> Alarm | None:
    """The alarm of a line; None if it is none."""
    with contextlib.suppress(orjson.JSONDecodeError, TypeError):
        fields = {**orjson.loads(line)}
        fields.pop(_GONE, None)
        alarm = Alarm(**fields)
        is_ours = isinstance(alarm.message, str) and isinstance(alarm.metric, str | None)
        return alarm if is_ours and is_time(alarm.time) else None
    return None


def _line(alarm: Alarm | dict[str, Any]) -> bytes:
    return orjson.dumps(alarm, option=orjson.OPT_APPEND_NEWLINE)


def _note(path: Path, alarm: Alarm) -> None:
    try:
        with alarms_path(path).open("ab", buffering=0) as file:
            file.write(_line(alarm))
    except OSError as error:
        _log.warning("%s: can't note this alarm: %s", alarms_path(path), error)

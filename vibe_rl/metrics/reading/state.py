"""Whether a run is under way, and how it ended: from its loggers' notes and locks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vibe_rl.metrics.append import read_writers
from vibe_rl.metrics.locks import is_locked
from vibe_rl.metrics.reading.blocks import metrics_files
from vibe_rl.run_dir import RunDir

State = Literal["running", "finished", "crashed", "unknown"]

_WELL = ("closed", "exit")


@dataclass(frozen=True)
class RunState:
    """What a run's loggers have noted.

    Attributes:
        state: `"running"` while a logger has the file open. Else how the logger that opened it last
            ended: `"finished"` or, by an error or a kill, `"crashed"`. `"unknown"` if no logger
            has noted anything.
        how: What that logger noted on closing: `"closed"`, `"exit"`, or the name of the exception;
            None without such a note.
        opened: When the first logger opened the file, in seconds since the epoch.
        ended: When the last one ended; of a killed one, when the file was written last. None while
            the run is running.
        killed: How many loggers ended without a note.
    """

    state: State
    how: str | None = None
    opened: float | None = None
    ended: float | None = None
    killed: int = 0


def run_state(run: str | os.PathLike[str] | RunDir) -> RunState:
    """Say whether a run is under way, and how it ended.

    Args:
        run: The metrics file, a run's directory, or a `RunDir`. Of a job's files, one for each
            process, the run is running if any is, and crashed if any has.

    Returns:
        What its loggers' notes and locks say; nothing is written.
    """
    states = [file_state(each) for each in metrics_files(run)]
    for state in ("running", "crashed", "finished"):
        found = [each for each in states if each.state == state]
        if found:
            opened = [each.opened for each in states if each.opened is not None]
            ended = [each.ended for each in found if each.ended is not None]
            return RunState(
                state=found[-1].state,
                how=found[-1].how,
                opened=min(opened, default=None),
                ended=max(ended, default=None),
                killed=sum(each.killed for each in states),
            )
    return states[0]


def file_state(path: Path) -> RunState:
    """Say so of one file, of a job's just this one."""
    opens: dict[str, dict[str, Any]] = {}  # the newest of each logger, in the order of opening
    closes: dict[str, dict[str, Any]] = {}
    opened = None
    for note in read_writers(path):
        logger = str(note.get("id"))
        if note["event"] == "close":
            closes[logger] = note
            continue
        opened = note["time"] if opened is None else opened
        opens.pop(logger, None)
        opens[logger] = note
    left_open = [logger for logger in opens if logger not in closes]
    # Without such a logger nobody need be asked: looking at the lock takes it for a moment.
    if (left_open or not opens) and _is_locked(path):
        return RunState("running", opened=opened, killed=0)
    if not opens:
        return RunState("unknown")
    last = next(reversed(opens))
    if last not in closes:
        return RunState("crashed", None, opened, _modified(path), len(left_open))
    how, ended = str(closes[last].get("how")), closes[last]["time"]
    return RunState("finished" if how in _WELL else "crashed", how, opened, ended, len(left_open))


def _is_locked(path: Path) -> bool:
    """Whether a logger has the file open."""
    try:
        with path.open("rb") as file:
            return is_locked(file.fileno())
    except FileNotFoundError:
        return False
    except OSError:  # a logger that noted no end may well be alive
        return True


def _modified(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None

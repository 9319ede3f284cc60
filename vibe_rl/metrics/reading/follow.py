"""A live file's records, as they are appended."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from vibe_rl.metrics.lines import Lines, Position
from vibe_rl.metrics.locks import is_locked
from vibe_rl.metrics.reading.blocks import metrics_files, records_with_places
from vibe_rl.metrics.reading.state import file_state, run_state
from vibe_rl.metrics.reading.tail import tail_records

# Between two looks at a file.
_LOOK_S = 0.1
# How many records `tail_and_follow` gives at a time.
_SOME = 1000


def follow(path: Path, *, strict: bool, timeout: float | None) -> Iterator[dict[str, Any]]:
    """Give a run's records as they land, until its loggers have ended; see `iter_metrics`."""
    for found in _looks(path, {}, strict=strict, timeout=timeout):
        yield from found


def tail_and_follow(path: Path, n: int) -> Iterator[list[dict[str, Any]]]:
    """Give the last `n` records of each of a run's files, and then, some at a time, what lands."""
    files: dict[Path, Lines] = {}
    for each in metrics_files(path):
        with suppress(FileNotFoundError):
            records, files[each] = _tail(each, n)
            yield records
    for found in _looks(path, files, strict=False, timeout=None):
        while records := list(islice(found, _SOME)):
            yield records


def _looks(
    path: Path, files: dict[Path, Lines], *, strict: bool, timeout: float | None
) -> Iterator[Iterator[dict[str, Any]]]:
    """Look at a run's files, by turns: gives the records of each that are new.

    Args:
        path: The run.
        files: Those that were read before, each at where to go on; they are closed in the end.
        strict: Raise at a corrupt line.
        timeout: The most seconds to wait for what is new.
    """
    has_ended = False
    try:
        last = time.monotonic()
        while True:
            for each in metrics_files(path):
                if each not in files:
                    with suppress(FileNotFoundError):
                        files[each] = Lines(each, Position(0, 0))
            for each, lines in files.items():
                before = lines.position
                yield _new_records(each, lines, strict=strict)
                if lines.position != before:
                    last = time.monotonic()
            if any(lines.move_on() for lines in files.values()):
                has_ended = False
                continue
            if has_ended or (timeout is not None and time.monotonic() - last >= timeout):
                return
            # Asked before the last look at the files, so that nothing can come after it.
            has_ended = _has_ended(path, files)
            if not has_ended:
                left = _LOOK_S if timeout is None else last + timeout - time.monotonic()
                time.sleep(max(min(_LOOK_S, left), 0))
    finally:
        for lines in files.values():
            lines.close()


def _tail(path: Path, n: int) -> tuple[list[dict[str, Any]], Lines]:
    """The last `n` records of a file, and what reads on from there."""
    while True:
        lines = Lines(path, Position(0, 0))
        sample = tail_records(path, n)
        status = os.fstat(lines.fileno())
        if sample.file_id == (status.st_dev, status.st_ino):
            lines.seek(Position(sample.end, 0))
            return sample.records, lines
        lines.close()  # another file has taken its place in between


def _has_ended(path: Path, files: dict[Path, Lines]) -> bool:
    """Whether all loggers of a run have ended, of which these files are open here."""
    # In a file that was moved, a logger goes on only when it appends again. Until then, no file of
    # that name is locked; but it keeps the lock of the old one until it has noted the new one.
    return run_state(path).state in ("finished", "crashed") and not any(
        file_state(each).killed and is_locked(lines.fileno()) for each, lines in files.items()
    )


def _new_records(path: Path, lines: Lines, *, strict: bool) -> Iterator[dict[str, Any]]:
    lines.refresh()
    while line := lines.peek():
        lines.pass_over(line)
        for _, _, record in records_with_places(
            line.text + b"\n", path, strict=strict, byte=line.byte, line=line.ordinal + 1
        ):
            yield record

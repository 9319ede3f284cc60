"""A live file's records, as they are appended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vibe_rl.metrics.lines import Lines, Position
from vibe_rl.metrics.reading.blocks import metrics_files, records_with_places
from vibe_rl.metrics.reading.state import run_state

# Between two looks at a file.
_LOOK_S = 0.1


def follow(path: Path, *, strict: bool, timeout: float | None) -> Iterator[dict[str, Any]]:
    """Give a run's records as they land, until its loggers have ended; see `iter_metrics`."""
    files: dict[Path, Lines] = {}
    try:
        last = time.monotonic()
        while True:
            # Asked before the last look at the files, so that nothing can come after it.
            has_ended = run_state(path).state in ("finished", "crashed")
            for each in metrics_files(path):
                if each not in files and each.exists():
                    files[each] = Lines(each, Position(0, 0))
            for each, lines in files.items():
                for record in _new_records(each, lines, strict=strict):
                    yield record
                    last = time.monotonic()
            if has_ended or (timeout is not None and time.monotonic() - last >= timeout):
                return
            left = _LOOK_S if timeout is None else last + timeout - time.monotonic()
            time.sleep(max(min(_LOOK_S, left), 0))
    finally:
        for lines in files.values():
            lines.close()


def _new_records(path: Path, lines: Lines, *, strict: bool) -> Iterator[dict[str, Any]]:
    while True:
        lines.refresh()
        while line := lines.peek():
            lines.pass_over(line)
            for _, _, record in records_with_places(
                line.text + b"\n", path, strict=strict, byte=line.byte, line=line.ordinal + 1
            ):
                yield record
        if not lines.move_on():  # the file that has taken this one's place, if one has
            return

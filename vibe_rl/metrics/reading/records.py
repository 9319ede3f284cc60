"""Records one by one: `iter_metrics` and `read_metrics`."""

from __future__ import annotations

import gc
import heapq
import operator
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from vibe_rl.metrics.append import process_paths
from vibe_rl.metrics.jsonl import count_newlines, decode_lines
from vibe_rl.metrics.lines import StartTimes
from vibe_rl.metrics.reading.blocks import metrics_path, read_blocks, records_with_places
from vibe_rl.metrics.reading.follow import follow as _follow
from vibe_rl.run_dir import RunDir


def iter_metrics(
    path: str | os.PathLike[str] | RunDir,
    *,
    strict: bool = False,
    follow: bool = False,
    timeout: float | None = None,
) -> Iterator[dict[str, Any]]:
    """Read a metrics file record by record, in the memory of a few.

    Where each process of a job has written a file of its own (`MetricsLogger(process="all")`), all
    are read, and their records come in the order of the times at which they were written.

    A last line without its newline is an append under way, or one that a crash cut short: it is
    passed over unless it is whole. Blank lines are passed over.

    Args:
        path: The metrics file, a run's directory, or a `RunDir`. A missing file has no records.
        strict: Raise at a corrupt line instead of passing over it with a warning.
        follow: Go on as the file grows, until its loggers have closed it or were killed. A missing
            file is waited for; one that another takes the place of is read to its end, and then
            the other. The files of a job's processes are read as they grow.
        timeout: With `follow`, the most seconds to wait for the next record; then this ends. None
            waits for ever, also for a file that no logger writes.

    Yields:
        Each record as a plain dictionary, as it was written.

    Raises:
        ValueError: With `strict`, at a line that is no JSON object; names file and line. Or if
            `timeout` is given without `follow`.

    Examples:
        >>> with MetricsLogger("runs/example/metrics.jsonl") as logger:
        ...     logger.write({"step": 0, "loss": 0.5})
        >>> for record in iter_metrics("runs/example/metrics.jsonl", follow=True):
        ...     print(record["loss"])
        0.5
    """
    if timeout is not None and not follow:
        raise ValueError("timeout is how long to wait for a file to grow: give follow=True with it")
    path = metrics_path(path)
    if follow:
        return _follow(path, strict=strict, timeout=timeout)
    return chain.from_iterable(_batches(path, strict=strict))


def read_metrics(
    path: str | os.PathLike[str] | RunDir, *, strict: bool = False
) -> list[dict[str, Any]]:
    """Read all records of a metrics file.

    Args:
        path: The metrics file, a run's directory, or a `RunDir`.
        strict: Raise at a corrupt line instead of passing over it with a warning.

    Returns:
        The records in the order of the file, as plain dictionaries, NaN and infinities included;
        an empty list if there is no file. See `iter_metrics` for a job's files, and `read_columns`
        for arrays.

    Raises:
        ValueError: With `strict`, at a line that is no JSON object; names file and line.

    Examples:
        >>> read_metrics("runs/none/logs/metrics.jsonl")
        []
    """
    with _no_garbage_collection():
        return list(iter_metrics(path, strict=strict))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Python would look through the records for garbage while they become more: a quarter longer.

    Of two threads in here, the one that came first ends it.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _batches(path: Path, *, strict: bool) -> Iterator[Iterable[dict[str, Any]]]:
    """The records, many together, for one `yield` each adds to the time of parsing them."""
    processes = process_paths(path)
    if processes:
        files = [_timed(each, strict=strict) for each in (path, *processes)]
        yield (record for _, record in heapq.merge(*files, key=operator.itemgetter(0)))
        return
    line = 1
    for text, _ in read_blocks(path):
        lines = count_newlines(text)
        records = decode_lines(text, lines)
        if records is None:
            found = records_with_places(text, path, strict=strict, line=line)
            yield (record for _, _, record in found)
        else:
            yield records
        line += lines


def _timed(path: Path, *, strict: bool) -> Iterator[tuple[float, dict[str, Any]]]:
    """A file's records, and the time at which each was written, in seconds since the epoch."""
    if not path.exists():
        return
    starts = StartTimes(path)
    starts.refresh()
    time = 0.0
    line = 1
    for block in read_blocks(path):
        for byte, _, record in records_with_places(
            block.text, path, strict=strict, byte=block.byte, line=line
        ):
            elapsed = record.get("wall_time")
            if isinstance(elapsed, float | int):
                time = starts.at(byte) + elapsed
            yield time, record
        line += count_newlines(block.text)

"""Columns of a metrics file as arrays: `read_columns`."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vibe_rl.metrics.append import process_paths
from vibe_rl.metrics.reading import polars_engine
from vibe_rl.metrics.reading.blocks import BLOCK, blocks_of, metrics_path, read_blocks, records_of
from vibe_rl.metrics.reading.fields import instead_of
from vibe_rl.metrics.reading.parts import Column, Part, join, parts_of
from vibe_rl.metrics.reading.records import iter_metrics
from vibe_rl.metrics.reading.tail import head_records
from vibe_rl.run_dir import RunDir

Stretch = tuple[int, dict[str, Part]]
"""How many records, and their columns."""

# Of polars; while one waits for Python, others parse.
_THREADS = 3


def read_columns(
    run: str | os.PathLike[str] | RunDir, *, columns: Collection[str] | None = None
) -> dict[str, NDArray[Any]]:
    """Read fields of a metrics file as arrays with one value for each record.

    The file may be larger than memory: beside the result, a few blocks of it are held. A corrupt
    line, a torn last one and blank lines are passed over; the files of a job's processes are
    merged as `iter_metrics` merges them. With polars installed it is quicker, for the same result.

    Args:
        run: The metrics file, a run's directory, or a `RunDir`.
        columns: Which fields; a field of a mapping is `"eval/return"`. None reads all.

    Returns:
        By name, in order of first appearance or as asked for: int64 (uint64 for what needs it) for
        integers and bool for booleans that every record has; float64 for other numbers, with NaN
        for a missing field, and NaN and infinities as they were logged; object for text, lists and
        mixed kinds, and for booleans that some records lack, with None for a missing field, and
        numbers among other kinds as floats. Without records, empty arrays of the fields asked for.

    Raises:
        TypeError: If `columns` is a single text.
        ValueError: If no record has a field that is asked for.

    Examples:
        >>> with MetricsLogger("runs/example/metrics.jsonl") as logger:
        ...     logger.write_batch({"step": range(3), "loss": [0.5, float("nan"), 0.25]})
        >>> read_columns("runs/example/metrics.jsonl", columns=["step", "loss"])
        {'step': array([0, 1, 2]), 'loss': array([0.5 ,  nan, 0.25])}
    """
    if isinstance(columns, str):
        raise TypeError(f"columns is a list of names, not a text: [{columns!r}]")
    table, rows = read_table(run, columns)
    if columns is None:
        return {name: column.values for name, column in table.items()}
    for name in columns:
        if rows and name not in table:
            there = instead_of(name, parts_of(head_records(run, 100), None))
            raise ValueError(f"no record of {metrics_path(run)} has {name!r}; {there}")
    return {name: table[name].values if rows else np.empty(0) for name in columns}


def read_table(
    run: str | os.PathLike[str] | RunDir, wanted: Collection[str] | None
) -> tuple[dict[str, Column], int]:
    """Read columns, and which records have them.

    Args:
        run: The metrics file, a run's directory, or a `RunDir`.
        wanted: Which columns; None means all.

    Returns:
        Those columns that any record has, and the number of records.
    """
    return join_stretches(run_stretches(metrics_path(run), wanted))


def join_stretches(stretches: Iterator[Stretch]) -> tuple[dict[str, Column], int]:
    """Put columns together from those of one stretch of records after the other."""
    parts: dict[str, list[tuple[int, Part]]] = {}
    rows = 0
    for count, found in stretches:
        for name, part in found.items():
            parts.setdefault(name, []).append((rows, part))
        rows += count
    # One after the other, so that there is one column at a time of which parts and whole are held.
    return {name: join(parts.pop(name), rows) for name in list(parts)}, rows


def file_stretches(path: Path, wanted: Collection[str] | None) -> Iterator[Stretch]:
    """Columns of one file, of a job's just this one, stretch by stretch."""
    if wanted is None or not polars_engine.is_installed():
        yield from _parse(read_blocks(path), wanted)
    else:
        yield from chain.from_iterable(_in_threads(path, wanted))


def run_stretches(path: Path, wanted: Collection[str] | None) -> Iterator[Stretch]:
    """Columns of a run's records, of a job's those of all its files, stretch by stretch."""
    if process_paths(path):
        records = iter_metrics(path)
        while batch := list(islice(records, 1000)):
            yield len(batch), parts_of(batch, wanted)
    else:
        yield from file_stretches(path, wanted)


def _in_threads(path: Path, wanted: Collection[str]) -> Iterator[list[Stretch]]:
    """Read a block while polars parses the ones before."""
    texts = (block.text for block in read_blocks(path, polars_engine.BLOCK))
    first = list(islice(texts, 2))
    if len(first) < 2:
        yield from (_parse_by_polars(text, wanted) for text in first)
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        under_way: deque[Future[list[Stretch]]] = deque()
        for text in chain(first, texts):
            under_way.append(pool.submit(_parse_by_polars, text, wanted))
            if len(under_way) > _THREADS:
                yield under_way.popleft().result()
        for each in under_way:
            yield each.result()


def _parse_by_polars(block: bytes, wanted: Collection[str]) -> list[Stretch]:
    stretch = polars_engine.parse(block, wanted)
    return [stretch] if stretch else list(_parse(blocks_of(io.BytesIO(block), BLOCK), wanted))


def _parse(blocks: Iterator[Any], wanted: Collection[str] | None) -> Iterator[Stretch]:
    for block in blocks:
        records = records_of(block.text)
        yield len(records), parts_of(records, wanted)

"""What a plot draws: a metric over its steps, of the records that have it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vibe_rl.metrics.append import process_paths
from vibe_rl.metrics.reading.blocks import metrics_path
from vibe_rl.metrics.reading.columns import Stretch, file_stretches, join_stretches
from vibe_rl.metrics.reading.parts import Column, parts_of
from vibe_rl.metrics.reading.tail import head_records, sample_records, tail_records
from vibe_rl.run_dir import RunDir

Floats = NDArray[np.float64]

# Where a metric's record says its seed, if one file holds several.
SEED = "seed"


@dataclass(frozen=True)
class Series:
    """A metric in the records that have it, in the order of the file.

    Attributes:
        x: Where each is: its step, or whatever was asked for.
        y: The metric, NaN and infinities as they were logged.
        seed: The records' field `seed`; None if they have none.
        fraction: How much of the file was read; 1.0 is all.
    """

    x: Floats
    y: Floats
    seed: NDArray[np.int64] | None = None
    fraction: float = 1.0

    def curves(self) -> dict[int | None, tuple[Floats, Floats]]:
        """Give each seed's curve, x ascending; of several records with one x, the last counts."""
        if self.seed is None:
            return {None: _ascending(self.x, self.y)}
        return {
            int(seed): _ascending(self.x[self.seed == seed], self.y[self.seed == seed])
            for seed in np.unique(self.seed)
        }


def read_series(
    run: str | os.PathLike[str] | RunDir,
    metrics: Sequence[str],
    *,
    x: str = "step",
    most_bytes: int | None = None,
) -> dict[str, Series]:
    """Read metrics as curves.

    A metric that only each tenth record has gives a curve without gaps; a NaN that was logged is
    a gap. Of a job with a file for each process, all are read; where several processes have a
    record of one step, and no seeds, the first one's counts.

    Args:
        run: The metrics file, a run's directory, or a `RunDir`.
        metrics: Their names, as `read_columns` has them.
        x: What to draw them over. Where the file has no field `step`, the record's number is it.
        most_bytes: About how much of a larger file to read, spread evenly; None reads all.

    Returns:
        The metrics that any record has as numbers.
    """
    files = _files(run)
    fraction = 1.0
    numbers: list[Floats] = []

    def stretches() -> Iterator[Stretch]:
        nonlocal fraction
        for file in reversed(files):  # so that the first process' value is the last of a step
            first = 0
            share = None if most_bytes is None else most_bytes // len(files)
            read, found = _read(file, [x, SEED, *metrics], share)
            fraction = min(fraction, read)
            for rows, parts in found:
                # In a sample, those that records so far into the file have.
                numbers.append((first + np.arange(rows)) / read)
                first += rows
                yield rows, parts

    table, rows = join_stretches(stretches())
    places = table.get(x)
    if places is None and x == "step" and rows:
        places = Column(np.concatenate(numbers), np.ones(rows, np.bool_))
    if places is None or not _is_numeric(places):
        return {}
    seeds = table.get(SEED)
    if seeds is not None and seeds.values.dtype.kind not in "iuf":
        seeds = None
    found = {}
    for name in metrics:
        if name not in table or not _is_numeric(table[name]):
            continue
        there = table[name].present & places.present
        if seeds is not None:
            there &= seeds.present
        found[name] = Series(
            places.values[there].astype(np.float64),
            table[name].values[there].astype(np.float64),
            None if seeds is None else seeds.values[there].astype(np.int64),
            fraction,
        )
    return found


def numeric_metrics(run: str | os.PathLike[str] | RunDir) -> list[str]:
    """Name the numeric fields of a run's first and last records, in order of appearance."""
    files = _files(run)
    records = [r for file in files for r in (*head_records(file, 100), *tail_records(file, 100))]
    parts = parts_of(records, None)
    return [name for name, part in parts.items() if part.values.dtype.kind in "iuf"]


def _files(run: str | os.PathLike[str] | RunDir) -> list[Path]:
    path = metrics_path(run)
    return [path, *process_paths(path)]


def _read(file: Path, wanted: list[str], most_bytes: int | None) -> tuple[float, Iterator[Stretch]]:
    """The share of a file that is read, and its columns."""
    if most_bytes is None:
        return 1.0, file_stretches(file, wanted)
    sample = sample_records(file, most_bytes)
    return sample.fraction, iter([(len(sample.records), parts_of(sample.records, wanted))])


def _is_numeric(column: Column) -> bool:
    return column.values.dtype.kind in "iufb"


def _ascending(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    last = np.append(x[1:] != x[:-1], True)[: len(x)]
    return x[last], y[last]

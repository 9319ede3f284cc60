"""What a plot draws: a metric over its steps, of the records that have it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vibe_rl.metrics.reading.blocks import metrics_files
from vibe_rl.metrics.reading.columns import Stretch, file_stretches, join_stretches
from vibe_rl.metrics.reading.fields import LABELS, TrainingTime, flat, is_number, label
from vibe_rl.metrics.reading.parts import Column, parts_of
from vibe_rl.metrics.reading.tail import sample_records
from vibe_rl.run_dir import RunDir

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]

# Of each file, the names of its metrics are looked for in so much.
_NAMES_BYTES = 1 << 20


@dataclass(frozen=True)
class Series:
    """A metric in the records that have it, in the order of the file.

    Attributes:
        x: Where each is: its step, or whatever was asked for.
        y: The metric, NaN and infinities as they were logged.
        code: Which of the labels each record has.
        labels: What tells the curves apart, see `label_of`.
        fraction: How much of the files was read; 1.0 is all.
        is_time: Whether x is a time, which the records of a batch share, and no step.
    """

    x: Floats
    y: Floats
    code: Codes
    labels: list[str]
    fraction: float = 1.0
    is_time: bool = False

    def curves(self) -> dict[str, tuple[Floats, Floats]]:
        """Give each label's curve, x ascending; of several records of one step, the last counts."""
        curves = {}
        for code, text in enumerate(self.labels):
            which = self.code == code
            if which.any():
                places = ascending(self.x[which], repeated=self.is_time)
                curves[text] = self.x[which][places], self.y[which][places]
        return curves


def read_series(
    run: str | os.PathLike[str] | RunDir,
    metrics: Sequence[str],
    *,
    x: str = "step",
    most_bytes: int | None = None,
) -> dict[str, Series]:
    """Read metrics as curves.

    A metric that only each tenth record has gives a curve without gaps; a NaN that was logged is
    a gap. A value that is no number is passed over, and so is a record whose x is not finite. Of a
    job with a file for each process, all are read; where several processes have a record of one
    step, and no labels, the first one's counts.

    Args:
        run: The metrics file, a run's directory, or a `RunDir`.
        metrics: Their names, as `read_columns` has them.
        x: What to draw them over. Where the file has no field `step`, the record's number is it;
            `wall_time` goes on where a logger took over from another.
        most_bytes: About how much of each file to read, spread evenly; None reads all.

    Returns:
        The metrics that any record has as numbers.
    """
    numbers: list[Floats] = []
    files: list[Codes] = []
    of_all = read_of_all = 0.0

    def stretches() -> Iterator[Stretch]:
        nonlocal of_all, read_of_all
        # Backwards, so that the first process' value is the last of a step.
        for nth, file in enumerate(reversed(metrics_files(run))):
            first = 0
            read, found = _read(file, [x, *LABELS, *metrics], most_bytes)
            size = file.stat().st_size if file.exists() else 0
            of_all, read_of_all = of_all + size, read_of_all + read * size
            for rows, parts in found:
                # In a sample, those that records so far into the file have.
                numbers.append((first + np.arange(rows)) / read)
                files.append(np.full(rows, nth))
                first += rows
                yield rows, parts

    table, rows = join_stretches(stretches())
    columns = {name: _numbers(column) for name, column in table.items()}
    code, labels = _labels(table, rows)
    if x == "step" and "step" not in columns and rows:
        columns[x] = np.concatenate(numbers), np.ones(rows, np.bool_)
    if x not in columns:
        return {}
    places, there = columns[x]
    if x == "wall_time":
        places = _training_time(places, code * len(files) + np.concatenate(files))
    there = there & np.isfinite(places)
    found = {}
    for name in metrics:
        values, present = columns.get(name, (places, np.zeros(rows, np.bool_)))
        both = there & present
        if both.any():
            fraction = read_of_all / of_all
            found[name] = Series(
                places[both], values[both], code[both], labels, fraction, x == "wall_time"
            )
    return found


def numeric_fields(run: str | os.PathLike[str] | RunDir) -> list[str]:
    """Name the numeric fields of a run's records, of a sample in a large file, in order."""
    samples = (sample_records(file, _NAMES_BYTES) for file in metrics_files(run))
    names = (
        name
        for sample in samples
        for record in sample.records
        for name, value in flat(record)
        if is_number(value)
    )
    return list(dict.fromkeys(names))


def ascending(x: Floats, *, repeated: bool = False) -> Codes:
    """The places of a curve's points in the order of x, the newest of those at one x.

    Args:
        x: Where the points are, in the order in which they came.
        repeated: Keep all of those at one x.
    """
    order: Codes = np.argsort(x, kind="stable")
    if repeated:
        return order
    x = x[order]
    newest: Codes = order[np.append(x[1:] != x[:-1], True)[: len(x)]]
    return newest


def _read(file: Path, wanted: list[str], most_bytes: int | None) -> tuple[float, Iterator[Stretch]]:
    """The share of a file that is read, and its columns."""
    if most_bytes is None:
        return 1.0, file_stretches(file, wanted)
    sample = sample_records(file, most_bytes)
    return sample.fraction, iter([(len(sample.records), parts_of(sample.records, wanted))])


def _numbers(column: Column) -> tuple[Floats, NDArray[np.bool_]]:
    """A column's numbers, and which of its values are any; of mixed kinds, the others are not."""
    if column.values.dtype.kind in "iufb":
        return column.values.astype(np.float64), column.present
    values = column.values.tolist()
    numeric = np.array([isinstance(value, int | float) for value in values], np.bool_)
    numbers = [value if ok else 0.0 for value, ok in zip(values, numeric.tolist(), strict=True)]
    return np.array(numbers, np.float64), numeric & column.present


def _labels(table: Mapping[str, Column], rows: int) -> tuple[Codes, list[str]]:
    """Which label each record has, and the labels."""
    codes, labels = np.zeros(rows, np.intp), [""]
    for name in LABELS:
        if name not in table:
            continue
        column = table[name]
        if column.values.dtype.kind == "O":
            said = [label(name, value) for value in column.values.tolist()]
            texts = list(dict.fromkeys(said))
            place = {text: nth for nth, text in enumerate(texts)}
            values = np.array([place[text] for text in said], np.intp)
        else:
            unique, values = np.unique(column.values, return_inverse=True)
            texts = ["", *(label(name, value) for value in unique.tolist())]
            values = np.where(column.present, values + 1, 0)
        # Only those that are there: of three fields' values, there might be very many pairs.
        pairs, codes = np.unique(codes * len(texts) + values, return_inverse=True)
        labels = [
            f"{labels[pair // len(texts)]} {texts[pair % len(texts)]}".strip()
            for pair in pairs.tolist()
        ]
    return codes, labels


def _training_time(wall: Floats, curve: Codes) -> Floats:
    """Each curve's `wall_time`, going on where a logger took over from another."""
    times = np.empty(len(wall))
    for each in np.unique(curve):
        which = curve == each
        clock = TrainingTime()
        times[which] = [clock.at(time) for time in wall[which].tolist()]
    return times

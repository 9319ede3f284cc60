"""What `vibe-rl show` says of a run: its metrics in numbers, and how far its backends are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vibe_rl.cli.select import metrics_files
from vibe_rl.metrics.alarms import AlertBackend
from vibe_rl.metrics.feed.cursor import is_in_use, saved_positions
from vibe_rl.metrics.lines import count_lines
from vibe_rl.metrics.reading.fields import is_number, metric_names, metrics_of
from vibe_rl.metrics.reading.nonfinite import first_nonfinite
from vibe_rl.metrics.reading.search import find_records
from vibe_rl.metrics.reading.tail import most_of_each, sample_records


@dataclass
class MetricSummary:
    """One metric over a run.

    Attributes:
        metric: Its name.
        count: How many records have it; of a sample, how many of that.
        first: Its first value.
        last: Its last value.
        min: Its least finite value; NaN without one.
        max: Its greatest finite value; NaN without one.
        nonfinite: How many of its values are NaN or infinite, in the whole file.
        nonfinite_step: The step of the first of them; None without.
    """

    metric: str
    count: int
    first: float
    last: float
    min: float = math.nan
    max: float = math.nan
    nonfinite: int = 0
    nonfinite_step: float | None = None


@dataclass(frozen=True)
class BackendProgress:
    """How far a backend is in a metrics file.

    Attributes:
        backend: What tells it from others.
        behind: How many records it has not had yet.
        fed: Whether a logger, or `vibe-rl sync`, is feeding it now.
    """

    backend: str
    behind: int
    fed: bool


@dataclass(frozen=True)
class Summary:
    """A run's metrics in numbers.

    Attributes:
        metrics: In the order of their first values. First and last values are those of the whole
            file in any case, and so are non-finite ones. What a sample has no record of is among
            them, at the end, only if it was not finite.
        fraction: How much of the files was read; 1.0 is all.
        corrupt: How many of the lines that were read are no records.
        torn: How many bytes at the files' ends are no whole line.
    """

    metrics: list[MetricSummary]
    fraction: float
    corrupt: int
    torn: int


def summarise(run: Path, most_bytes: int | None) -> Summary:
    """Summarise a run's metrics.

    Args:
        run: The run's directory or metrics file.
        most_bytes: About how much to read of a larger file; None reads all.
    """
    found: dict[str, MetricSummary] = {}
    files = metrics_files(run)
    sizes = [file.stat().st_size for file in files]
    most = most_of_each(files, most_bytes)
    samples = [sample_records(file, most) for file in files]
    records = [record for sample in samples for record in sample.records]
    if len(files) > 1:  # a job's processes, which went side by side
        records.sort(key=_step)
    _add(found, records)
    nonfinite = first_nonfinite(run)
    if any(sample.fraction < 1 for sample in samples):
        _find_ends(found, files, nonfinite)
    for metric, first in nonfinite.items():
        if metric in found:
            found[metric].nonfinite, found[metric].nonfinite_step = first.count, first.step
    read = [sample.fraction * sample.end for sample in samples]
    return Summary(
        metrics=list(found.values()),
        fraction=sum(read) / max(sum(sample.end for sample in samples), 1) if any(read) else 1.0,
        corrupt=sum(sample.corrupt for sample in samples),
        torn=sum(max(size - s.end, 0) for size, s in zip(sizes, samples, strict=True)),
    )


def backends(run: Path) -> list[BackendProgress]:
    """How far the backends are that have ever been fed from a run's files."""
    return [
        BackendProgress(
            identity, count_lines(file, position.byte), is_in_use(file, identity.split(" ")[0])
        )
        for file in metrics_files(run)
        for identity, position in saved_positions(file).items()
        if identity != AlertBackend.name  # a user's own check, which is no service
    ]


def _step(record: Mapping[str, Any]) -> float:
    step = record.get("step")
    return step if is_number(step) and not math.isnan(step) else -math.inf


def _find_ends(
    found: dict[str, MetricSummary], files: list[Path], nonfinite: Iterable[str]
) -> None:
    """Correct a sample's first and last values, and add the metrics of which it has none."""
    metrics = metric_names(dict.fromkeys([*found, *nonfinite]))
    for is_last in (False, True):
        ends = [find_records(file, metrics, numeric=True, last=is_last) for file in files]
        for metric in metrics:
            records = sorted((end[metric] for end in ends if metric in end), key=_step)
            if records:
                value = metrics_of(records[-1 if is_last else 0])[metric]
                summary = found.setdefault(metric, MetricSummary(metric, 0, value, value))
                if is_last:
                    summary.last = value
                else:
                    summary.first = value
                _widen(summary, value)


def _add(found: dict[str, MetricSummary], records: Iterable[Mapping[str, Any]]) -> None:
    for record in records:
        for metric, value in metrics_of(record).items():
            summary = found.get(metric)
            if summary is None:
                summary = found[metric] = MetricSummary(metric, 0, value, value)
            summary.count += 1
            summary.last = value
            _widen(summary, value)


def _widen(summary: MetricSummary, value: float) -> None:
    if math.isfinite(value):
        # In this order: what is compared with NaN is false.
        summary.min = value if not value >= summary.min else summary.min
        summary.max = value if not value <= summary.max else summary.max

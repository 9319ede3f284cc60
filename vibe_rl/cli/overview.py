"""What the table of runs says of a run: read from a few places of its files, however large."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Any

from vibe_rl.cli.select import metrics_files
from vibe_rl.metrics.reading.fields import is_number, metrics_of, return_metric, value_of
from vibe_rl.metrics.reading.state import run_state
from vibe_rl.metrics.reading.tail import sample_records
from vibe_rl.run_dir import RunDir

# Of a larger file, as much is read, at eight places: ten to sixty records.
MOST_BYTES = 1 << 12
# And as much at its end, for steps per second are those of the last records.
_END_BYTES = 1 << 11
_RATE_RECORDS = 20


@dataclass(frozen=True)
class Overview:
    """One run in the table of runs.

    Attributes:
        run: Its id.
        state: `"running"`, `"finished"`, `"crashed"` or `"unknown"`, see `run_state`; or
            `"unreadable"`.
        how: How its logger ended: `"closed"`, `"exit"`, an exception's name; None without a note.
            Of a run that can't be read, why.
        started: When its first logger started, in seconds since the epoch; None if none has.
        written: When its metrics were written last; None without a file.
        step: The newest record's step.
        steps_per_second: The speed over the newest records.
        metric: The name of the metric that `last` and `trend` are of; None if it has none.
        last: Its newest value.
        trend: Its values at places spread over the run, in order.
        bytes: The metrics files' size. Of a job with a file for each process, the other values
            are those of the first file.
    """

    run: str
    state: str
    how: str | None = None
    started: float | None = None
    written: float | None = None
    step: float | None = None
    steps_per_second: float | None = None
    metric: str | None = None
    last: float | None = None
    trend: list[float] = field(default_factory=list)
    bytes: int = 0


def overview(run: RunDir, metric: str | None = None) -> Overview:
    """Read what the table of runs says of a run.

    Args:
        run: The run.
        metric: The metric to show; None chooses the run's return.

    Returns:
        The row. A run whose files can't be read hides no other: its row says so.
    """
    try:
        return _read(run, metric)
    except OSError as error:
        return Overview(run.run_id, "unreadable", how=str(error))


def _read(run: RunDir, metric: str | None) -> Overview:
    files = metrics_files(run)
    state = run_state(run)
    stats = [file.stat() for file in files]
    records = sample_records(files[0], MOST_BYTES).records if files else []
    newest = records
    if files and stats[0].st_size > MOST_BYTES:
        # It may begin in the middle of a line; and all of it may be the middle of one.
        end = sample_records(files[0], start=stats[0].st_size - _END_BYTES).records
        newest = end if len(end) > 1 else records
    # Of the records with the same fields one: to take apart every one takes longer than to read it.
    kinds = {tuple(record): record for record in records}.values()
    metric = metric or return_metric(chain.from_iterable([*records, *map(metrics_of, kinds)]))
    trend = _values(records, metric)
    both = [*records, *newest]
    return Overview(
        run=run.run_id,
        state=state.state,
        how=state.how,
        started=state.opened,
        written=max((stat.st_mtime for stat in stats), default=None),
        step=next((r["step"] for r in reversed(both) if is_number(r.get("step"))), None),
        steps_per_second=_rate(newest[-_RATE_RECORDS:]),
        metric=metric,
        last=next(reversed(_values(newest, metric) or trend), None),
        trend=trend,
        bytes=sum(stat.st_size for stat in stats),
    )


def _values(records: list[dict[str, Any]], metric: str | None) -> list[float]:
    values = (value_of(record, metric) for record in records) if metric else ()
    return [value for value in values if value is not None]


def _rate(records: list[dict[str, Any]]) -> float | None:
    """Steps per second over the records of the newest logger; its `wall_time` began at 0."""
    points: list[tuple[float, float]] = [
        (record["wall_time"], record["step"])
        for record in records
        if is_number(record.get("wall_time")) and is_number(record.get("step"))
    ]
    resumed = [i for i, ((a, _), (b, _)) in enumerate(pairwise(points), start=1) if b < a]
    points = points[resumed[-1] if resumed else 0 :]
    if len(points) < 2 or points[-1][0] <= points[0][0]:
        return None
    return (points[-1][1] - points[0][1]) / (points[-1][0] - points[0][0])

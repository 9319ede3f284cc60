"""`vibe-rl runs`: a table of runs."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from vibe_rl.cli import UsageError
from vibe_rl.cli.select import all_runs
from vibe_rl.cli.text import encodable, printable

if TYPE_CHECKING:
    from vibe_rl.cli.overview import Overview
    from vibe_rl.run_dir import RunDir

_NO_RUN = "there is no run in {}; `vibe-rl train` starts one"
# The metrics that an error names are those of so many runs.
_NAMING = 20
_STATE_COLOURS = {"running": "green", "crashed": "red", "unreadable": "red", "unknown": "dim"}

ANY = "(default: all)"

# "started" is the order in which runs are found.
Sort = Literal["started", "written", "name", "step", "return", "size"]


def runs(
    pattern: Annotated[Positional[str], arg(metavar="[PATTERN]", help_behavior_hint=ANY)] = "",
    *,
    base_dir: Annotated[str, arg(metavar="DIR")] = "runs",
    state: Annotated[
        Literal["running", "finished", "crashed", "unreadable", "unknown"] | None,
        arg(metavar="running|finished|crashed|unreadable|unknown", help_behavior_hint=ANY),
    ] = None,
    metric: Annotated[
        str | None, arg(metavar="NAME", help_behavior_hint="(default: the return)")
    ] = None,
    sort: Sort = "started",
    newest: Annotated[int | None, arg(aliases=["-n"], metavar="N", help_behavior_hint=ANY)] = None,
    json: bool = False,
) -> None:
    """List runs: state, age, steps, speed, and the last return with its trend.

    Args:
        pattern: Only runs whose id has this in it; with * or ?, only those that match it.
        base_dir: The directory of all runs.
        state: Only runs in this state.
        metric: The metric to show.
        sort: The order of the rows: the newest, or the largest, comes last, next to the prompt.
        newest: Only the last so many rows.
        json: Print a JSON object a line, with times in seconds since the epoch and sizes in bytes.
    """
    # Here, because --help shall not wait for NumPy.
    from vibe_rl.cli.overview import MOST_BYTES, overview  # noqa: PLC0415
    from vibe_rl.metrics.jsonl import encode  # noqa: PLC0415

    if newest is not None and newest < 1:
        raise UsageError(f"--newest is a number of runs, at least 1, not {newest}")
    all_there = all_runs(base_dir)
    found = [run for run in all_there if _matches(run.run_id, pattern)]
    if sort == "started" and state is None and newest:
        found = found[-newest:]  # they are in that order, and the others need not be read
    rows = [overview(run, metric) for run in found]
    if metric and rows and all(row.last is None for row in rows):
        _say_that_none_has(metric, found, is_sure=all(row.bytes <= MOST_BYTES for row in rows))
    rows = [row for row in rows if state in (None, row.state)]
    if sort != "started":
        rows.sort(key=lambda row: _key(row, sort))
    rows = rows[-newest:] if newest else rows
    if json:
        for row in rows:
            sys.stdout.buffer.write(encode(asdict(row) | {"run": encodable(row.run)}))
    elif rows:
        _print_table(rows)
    else:
        what = f"none of {len(all_there)} runs in {base_dir} is one of these"
        print(what if all_there else _NO_RUN.format(base_dir), file=sys.stderr)


def _say_that_none_has(metric: str, runs: list[RunDir], *, is_sure: bool) -> None:
    """Refuse a metric that no run has, or say that none was found in what is read of the runs."""
    from vibe_rl.metrics.reading.fields import instead_of, metric_names  # noqa: PLC0415 - as above
    from vibe_rl.metrics.reading.series import numeric_fields  # noqa: PLC0415

    there = {name for run in runs[-_NAMING:] for name in metric_names(numeric_fields(run))}
    instead = "" if metric in there else f"; {instead_of(metric, there)}"
    if is_sure:
        raise UsageError(f"no run has a metric {metric!r}{instead}")
    message = f"the few kilobytes that are read of each run have no metric {metric!r}{instead}"
    print(f"vibe-rl: {printable(message)}", file=sys.stderr)


def _matches(run_id: str, pattern: str) -> bool:
    return fnmatchcase(run_id, pattern) if set(pattern) & set("*?[") else pattern in run_id


def _key(row: Overview, sort: Sort) -> tuple[bool, float | str]:
    """What a row is sorted by; rows without come first, far from the prompt."""
    key: float | str | None = {
        "written": row.written,
        "name": row.run,
        "step": row.step,
        "return": None if row.last is None or math.isnan(row.last) else row.last,
        "size": row.bytes,
    }[sort]
    return (key is not None, 0.0 if key is None else key)


def _print_table(rows: list[Overview]) -> None:
    from vibe_rl.cli.table import Cell, Columns, Terminal  # noqa: PLC0415 - as above
    from vibe_rl.cli.text import duration, short, size, sparkline  # noqa: PLC0415

    now = time.time()
    metrics = {row.metric for row in rows if row.metric}
    header = ["state", "age", "step", "steps/s", "return", "trend", "size", "run"]
    if len(metrics) == 1 and "return" not in (name := metrics.pop()):
        header[4] = name
    table: list[list[Cell]] = [[(name, "bold") for name in header]]
    for row in rows:
        last = short(row.last)
        is_finite = row.last is None or math.isfinite(row.last)
        table.append(
            [
                (row.state, _STATE_COLOURS.get(row.state, "")),
                "-" if row.started is None else duration(now - row.started),
                short(row.step),
                short(row.steps_per_second),
                last if is_finite else (last, "red"),
                sparkline(row.trend),
                size(row.bytes),
                f"{row.run}  {row.how}" if row.state == "unreadable" else row.run,
            ]
        )
    Terminal().show(Columns("<>>>><><", table).lines(table))

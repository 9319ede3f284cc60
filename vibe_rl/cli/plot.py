"""`vibe-rl plot`: learning curves in a file."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from vibe_rl.cli import UsageError
from vibe_rl.cli.select import all_runs, find_run
from vibe_rl.cli.text import printable

# What they have is asked of so many runs; the metric is chosen for all.
_ASKED = 20


def plot(
    run: Annotated[
        Positional[tuple[str, ...]], arg(metavar="RUN [RUN …]", help_behavior_hint="(required)")
    ],
    *,
    output: Annotated[str, arg(aliases=["-o"], metavar="FILE")],
    metric: Annotated[
        str | None, arg(metavar="NAME", help_behavior_hint="(default: the return)")
    ] = None,
    x: Annotated[str, arg(metavar="NAME")] = "step",
    group: Annotated[str, arg(metavar="experiment|run|FIELD")] = "experiment",
    center: Literal["mean", "median", "iqm"] = "mean",
    band: Annotated[
        Literal["se", "ci", "range", "none"] | None,
        arg(metavar="se|ci|range|none", help_behavior_hint="(default: se of a mean, else ci)"),
    ] = None,
    smooth: Annotated[int, arg(metavar="N")] = 1,
    log_y: bool = False,
    base_dir: Annotated[str, arg(metavar="DIR")] = "runs",
) -> None:
    """Plot a metric: a line a group of runs, with a band over its seeds.

    Args:
        run: A run's directory, its metrics file, its id or the beginning of it, latest, or a
            pattern of ids such as 'ppo_*'.
        output: The file to write: .png, .svg or .pdf; without an ending, .png.
        metric: What to plot; of a mapping, eval/return.
        x: Over what: step, wall_time, or another field.
        group: What a line is: the runs of an experiment, each run, or the runs that share these
            fields of their configs, such as lr,gamma.
        center: What the line is of its seeds; iqm is the interquartile mean.
        band: The standard error, a bootstrap 95 % confidence interval, from the least seed to the
            greatest, or none.
        smooth: A moving average over so many records.
        log_y: Make the y axis logarithmic.
        base_dir: The directory of all runs.
    """
    # Here, because --help shall not wait for NumPy.
    from vibe_rl.plotting import group_runs, plot_runs, save_figure  # noqa: PLC0415
    from vibe_rl.plotting.lines import LeftOutWarning  # noqa: PLC0415

    if not run:
        raise UsageError("give one or more runs to plot, such as latest")
    if smooth < 1:
        raise UsageError(f"--smooth is a number of records, at least 1, not {smooth}")
    runs = list(dict.fromkeys(each for name in run for each in _find(name, base_dir)))
    name = metric or _usual_metric(runs)
    try:
        with warnings.catch_warnings(record=True) as caught:  # matplotlib's own aren't shown
            warnings.simplefilter("always")
            figure = plot_runs(
                group_runs(runs, group),
                name,
                x=x,
                center=center,
                band=band,
                smooth=smooth,
                log_y=log_y,
            )
            path = save_figure(figure, output if Path(output).suffix else f"{output}.png")
    except ValueError as error:
        raise UsageError(str(error)) from error
    left_out = [each.message for each in caught if isinstance(each.message, LeftOutWarning)]
    for message in left_out:
        print(f"vibe-rl: left out: {printable(str(message))}", file=sys.stderr)
    drawn = len(runs) - sum(message.runs for message in left_out)
    drawn_of = f"{name} of {drawn} {'run' if drawn == 1 else 'runs'}"
    print(printable(f"{os.path.relpath(path)}: {drawn_of}"))


def _find(name: str, base_dir: str) -> list[Path]:
    if not set(name) & set("*?[") or Path(name).exists():
        return [find_run(name, base_dir)]
    found = [each.root for each in all_runs(base_dir) if fnmatchcase(each.run_id, name)]
    if not found:
        raise UsageError(f"no run in {os.path.relpath(base_dir)} matches {name!r}")
    return found


def _usual_metric(runs: Sequence[Path]) -> str:
    from vibe_rl.metrics.reading.fields import metric_names, return_metric  # noqa: PLC0415
    from vibe_rl.metrics.reading.series import numeric_fields  # noqa: PLC0415

    there = dict.fromkeys(
        name for run in runs[:_ASKED] for name in metric_names(numeric_fields(run))
    )
    if not there:
        raise UsageError(f"{runs[0].name} has no numbers yet")
    return return_metric(there) or next(iter(there))

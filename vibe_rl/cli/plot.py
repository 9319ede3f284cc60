"""`vibe-rl plot`: learning curves in a file."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from vibe_rl.cli import UsageError
from vibe_rl.cli.select import find_run

if TYPE_CHECKING:
    from collections.abc import Sequence

# What a plot shows if nothing is asked for: the first of these that the run has.
_METRICS = ("episode_return", "eval_return_mean", "eval/return", "return", "reward", "loss")


def plot(
    run: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN [RUN …]")],
    *,
    output: Annotated[str, arg(aliases=["-o"], metavar="FILE")],
    metric: Annotated[
        str | None, arg(metavar="NAME", help_behavior_hint="(default: the return)")
    ] = None,
    x: Annotated[str, arg(metavar="NAME")] = "step",
    group: Annotated[str, arg(metavar="experiment|run|FIELD")] = "experiment",
    center: Literal["mean", "median", "iqm"] = "mean",
    band: Annotated[
        Literal["se", "ci", "none"] | None,
        arg(help_behavior_hint="(default: se of a mean, else ci)"),
    ] = None,
    smooth: Annotated[int, arg(metavar="N")] = 1,
    log_y: bool = False,
    base_dir: Annotated[str, arg(metavar="DIR")] = "runs",
) -> None:
    """Plot a metric: a line a group of runs, with a band over its seeds.

    Args:
        run: A run's directory, its metrics file, its id or the beginning of it, latest, or a
            pattern of ids such as 'ppo_*'.
        output: The file to write: .png, .svg or .pdf.
        metric: What to plot; of a mapping, eval/return.
        x: Over what: step, wall_time, or another field.
        group: What a line is: the runs of an experiment, each run, or the runs that share these
            fields of their configs, such as lr,gamma.
        center: What the line is of its seeds; iqm is the interquartile mean.
        band: The standard error, a bootstrap 95 % confidence interval, or none.
        smooth: A moving average over so many records.
        log_y: Make the y axis logarithmic.
        base_dir: The directory of all runs.
    """
    # Here, because --help shall not wait for NumPy.
    from vibe_rl.plotting import group_runs, plot_runs, save_figure  # noqa: PLC0415

    if not run:
        raise UsageError("give one or more runs to plot, such as latest")
    if smooth < 1:
        raise UsageError(f"--smooth is a number of records, at least 1, not {smooth}")
    runs = list(dict.fromkeys(each for name in run for each in _find(name, base_dir)))
    name = metric or _usual_metric(runs)
    try:
        figure = plot_runs(
            group_runs(runs, group),
            name,
            x=x,
            center=center,
            band=band,
            smooth=smooth,
            log_y=log_y,
        )
        path = save_figure(figure, output)
    except ValueError as error:
        raise UsageError(str(error)) from error
    print(f"{os.path.relpath(path)}: {name} of {len(runs)} {'run' if len(runs) == 1 else 'runs'}")


def _find(name: str, base_dir: str) -> list[Path]:
    from vibe_rl.run_dir import find_runs  # noqa: PLC0415 - as above

    if not set(name) & set("*?[") or Path(name).exists():
        return [find_run(name, base_dir)]
    found = [each.root for each in find_runs(base_dir) if fnmatchcase(each.run_id, name)]
    if not found:
        raise UsageError(f"no run in {os.path.relpath(base_dir)} matches {name!r}")
    return found


def _usual_metric(runs: Sequence[Path]) -> str:
    from vibe_rl.metrics.reading.series import numeric_metrics  # noqa: PLC0415 - as above

    there = numeric_metrics(runs[0])
    if not there:
        raise UsageError(f"{runs[0].name} has no numbers yet")
    others = [name for name in there if name not in ("step", "wall_time", "seed")]
    return next((name for name in _METRICS if name in there), (others or there)[0])

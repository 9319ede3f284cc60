"""`vibe-rl watch`: runs' curves in the terminal, while they grow."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from vibe_rl.cli import TerminatedError, UsageError
from vibe_rl.cli.select import LATEST, find_run


def watch(
    runs: Annotated[
        Positional[tuple[str, ...]],
        arg(metavar="[RUN ...]", help_behavior_hint="(default: latest)"),
    ] = (),
    *,
    base_dir: Annotated[str, arg(metavar="DIR")] = "runs",
    metric: Annotated[
        str | None, arg(metavar="NAME", help_behavior_hint="(default: the return)")
    ] = None,
) -> None:
    """Watch runs' curves in the terminal while they grow; the keys are on the screen.

    Args:
        runs: Paths, ids or beginnings of ids. Without any, the latest run, also if it is yet to
            start.
        base_dir: The directory of all runs.
        metric: The metric to begin with.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("watch needs a terminal; into a pipe: vibe-rl tail RUN -f")
    named = [find_run(run, base_dir) for run in runs]

    def find() -> list[Path]:
        try:
            return named or [find_run(LATEST, base_dir)]
        except (UsageError, OSError):
            return []

    try:
        from vibe_rl.cli.watching.app import WatchApp  # noqa: PLC0415 - --help shall be quick
    except ModuleNotFoundError as error:
        raise ImportError(f"needs {error.name}: pip install 'vibe-rl[cli]'") from error
    waiting = f"No run in {base_dir} yet. When one starts, it is shown here:\n  vibe-rl train ppo"
    if metric and named:
        _check_metric(metric, named)
    app = WatchApp(find, waiting, metric)
    code = app.run()
    if app.broken is not None:
        raise OSError(f"watch broke: {type(app.broken).__name__}: {app.broken}")
    if code == 130:
        raise KeyboardInterrupt
    if code is not None and code > 128:
        raise TerminatedError


def _check_metric(metric: str, runs: list[Path]) -> None:
    """Refuse a metric that runs don't have and won't get any more."""
    from vibe_rl.metrics.reading.fields import instead_of, metric_names  # noqa: PLC0415 - as above
    from vibe_rl.metrics.reading.series import numeric_fields  # noqa: PLC0415
    from vibe_rl.metrics.reading.state import run_state  # noqa: PLC0415

    there = [name for run in runs for name in metric_names(numeric_fields(run))]
    if there and metric not in there and all(run_state(run).state != "running" for run in runs):
        raise UsageError(f"there is no metric {metric!r}; {instead_of(metric, there)}")

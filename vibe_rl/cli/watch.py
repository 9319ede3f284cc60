"""`vibe-rl watch`: runs' curves in the terminal, while they grow."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from vibe_rl.cli import TerminatedError, UsageError
from vibe_rl.cli.select import LATEST, find_run


def watch(
    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="[RUN ...]")] = (),
    *,
    base_dir: Annotated[str, arg(metavar="DIR")] = "runs",
    metric: Annotated[str | None, arg(metavar="NAME")] = None,
) -> None:
    """Watch runs' curves in the terminal while they grow; the keys are on the screen.

    Args:
        runs: Paths, ids or beginnings of ids. Without any, the latest run, also if it is yet to
            start.
        base_dir: The directory of all runs.
        metric: The metric to begin with; without this, the return.
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
    code = WatchApp(find, waiting, metric).run()
    if code == 130:
        raise KeyboardInterrupt
    if code is not None and code > 128:
        raise TerminatedError

"""Training progress as a bar on the terminal: `TrainingProgress`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from vibe_rl.metrics.console import format_metrics, log_step_progress

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.progress import Progress

# Off a terminal, a run logs so many lines.
_LINES = 20


class TrainingProgress:
    """A progress bar on stderr: step, percentage, rate, time left and the newest metrics.

    What is printed meanwhile, log lines of `setup_logging` and `print`, appears above the bar.
    (A stream handler that was made before, by `logging.basicConfig` say, knows nothing of it.)

    When stderr is no terminal there is no bar; `log_step_progress` logs a line for each twentieth
    of the run instead, which is seen where logging is set up to show it.

    Args:
        total_steps: The planned number of training steps; 0 or more.
        description: What stands before the bar.

    Raises:
        ValueError: If `total_steps` is negative.
        ImportError: If stderr is a terminal and `rich` is missing (on entering the context).

    Examples:
        >>> with TrainingProgress(60_000) as progress:
        ...     for step in range(0, 60_001, 500):
        ...         progress.update(step, {"loss": 1 / (step + 1)})
    """

    def __init__(self, total_steps: int, description: str = "train") -> None:
        if total_steps < 0:
            raise ValueError(f"total_steps must be 0 or more, got {total_steps}")
        self._total_steps = total_steps
        self._description = description
        self._metrics = ""
        self._lines = 0
        self._bar: Progress
        self._live: Live | None = None

    def __enter__(self) -> Self:
        # The stream itself is asked: rich takes FORCE_COLOR, which CI sets, for a terminal.
        if _is_terminal(sys.stderr):
            self._start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(self, step: int, metrics: Mapping[str, Any] | None = None) -> None:
        """Show how far training is.

        Args:
            step: The current training step.
            metrics: Scalars, as `log_step_progress` takes them; None leaves the ones shown.
        """
        if self._live is None:
            self._log(int(step), metrics)
            return
        self._bar.update(self._bar.task_ids[0], completed=int(step))
        if metrics is not None:
            self._metrics = format_metrics(metrics)

    def _log(self, step: int, metrics: Mapping[str, Any] | None) -> None:
        lines = _LINES * step // max(self._total_steps, 1)
        if lines > self._lines:
            self._lines = lines
            log_step_progress(step, self._total_steps, metrics)

    def _start(self) -> None:
        try:
            from rich import console, live, progress  # noqa: PLC0415 - rich is optional
        except ImportError as error:
            raise ImportError(
                "the progress bar needs rich: pip install 'vibe-rl[train]'"
            ) from error
        # Soft wrapping leaves long log lines to the terminal, so that they stay one line to copy.
        screen = console.Console(stderr=True, soft_wrap=True)
        if not screen.is_interactive:
            return
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(bar_width=None),
            progress.TextColumn("{task.completed:,}/{task.total:,}"),
            progress.TaskProgressColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeRemainingColumn(),
            progress.TextColumn("left"),
            console=screen,
            expand=True,
            speed_estimate_period=300,  # long enough for runs that report once in minutes
        )
        self._bar.add_task(self._description, total=self._total_steps, rate="")
        self._live = live.Live(
            console=screen,
            get_renderable=self._render,
            # A stdout that is piped elsewhere keeps what is printed to it.
            redirect_stdout=_is_terminal(sys.stdout),
        )
        self._live.start()

    def _render(self) -> RenderableType:
        from rich import console, text  # noqa: PLC0415 - rich is optional

        (task,) = self._bar.tasks
        if task.speed:
            task.fields["rate"] = f"{task.speed:,.{0 if task.speed >= 10 else 2}f} steps/s"
        return console.Group(self._bar, text.Text(self._metrics, no_wrap=False, overflow="fold"))


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()

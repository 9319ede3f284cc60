"""The screen of `vibe-rl watch`: a chart, what it shows, and the keys."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Footer, OptionList, Static

from vibe_rl.cli.fields import return_metric
from vibe_rl.cli.text import duration, short, size
from vibe_rl.cli.watching.chart import RGB, Line, draw, mean_and_range, smooth
from vibe_rl.cli.watching.live_run import LiveRun, XAxis

# Between two looks at the files: a reader of a few bytes costs the training run nothing.
_LOOK_S = 1.0
_WINDOWS = (1, 10, 100, 1000)
# So many runs have a row of their own at the top.
_ROWS = 4
# Okabe and Ito's colours, which the colour-blind can tell apart, as far as they stand out on black.
_COLOURS: tuple[RGB, ...] = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (240, 228, 66),
    (204, 121, 167),
    (213, 94, 0),
    (200, 200, 200),
)


class _Chart(Widget):
    """What is drawn to fill it, again whenever the room for it changes."""

    _draw_in: Callable[[int, int], Text] | None = None

    def show(self, draw_in: Callable[[int, int], Text]) -> None:
        """Show what this gives for a width and a height."""
        self._draw_in = draw_in
        self.refresh()

    def render(self) -> Text:
        """Draw."""
        return self._draw_in(*self.size) if self._draw_in else Text()


class WatchApp(App[int]):
    """A live view of runs.

    Args:
        find: Gives the paths of the runs to show; asked again while there is none.
        waiting: What the screen says meanwhile.
        metric: The metric to begin with; None chooses the run's return.
    """

    CSS = """
    #head { height: auto; max-height: 6; text-overflow: ellipsis; }
    #chart { height: 1fr; text-wrap: nowrap; }
    #foot { height: auto; max-height: 4; text-wrap: nowrap; text-overflow: ellipsis; }
    #choice { display: none; height: 1fr; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "leave(0)", "quit"),
        Binding("ctrl+c", "leave(130)", show=False, priority=True),
        Binding("right", "metric(1)", "metric", key_display="←→", priority=True),
        Binding("left", "metric(-1)", show=False, priority=True),
        Binding("m", "choose", "choose"),
        Binding("s", "smooth", "smooth"),
        Binding("l", "log", "log"),
        Binding("x", "x_axis", "x axis"),
        Binding("b", "band", "mean/lines"),
        Binding("escape", "close_choice", show=False),
    ]

    def __init__(
        self, find: Callable[[], Sequence[Path]], waiting: str, metric: str | None = None
    ) -> None:
        super().__init__(ansi_color=False)
        self._find = find
        self._waiting = waiting
        self._metric = metric
        self._runs: list[LiveRun] = []
        self._window = 1
        self._is_log = False
        self._x: XAxis = "step"
        self._band = False

    def compose(self) -> ComposeResult:
        """The screen from top to bottom."""
        yield Static(id="head", markup=False)
        yield _Chart(id="chart")
        yield OptionList(id="choice")
        yield Static(id="foot", markup=False)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Begin to look at the files."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGHUP):  # else the terminal is left as it is
            loop.add_signal_handler(signum, self.exit, 128 + signum)
        self._draw()
        self._look()

    @work(thread=True)
    def _look(self) -> None:
        """Look at the files from time to time; a thread, for the first look takes a while."""
        while self.is_running:
            is_new = False
            if not self._runs:
                self._runs = [LiveRun(path) for path in self._find()]
                self.call_from_thread(self._draw)
            for run in self._runs:
                is_new = run.look() or is_new
            if self.is_running:
                self.call_from_thread(self._draw if is_new else self._draw_head)
            time.sleep(_LOOK_S)

    def action_leave(self, code: int) -> None:
        """End with an exit code."""
        self.exit(code)

    def action_metric(self, by: int) -> None:
        """Show the next metric, or the one before."""
        if metrics := self._metrics():
            at = metrics.index(self._shown_metric(metrics))
            self._metric = metrics[(at + by) % len(metrics)]
        self._draw()

    def action_choose(self) -> None:
        """Show the list of metrics."""
        choice = self.query_one("#choice", OptionList)
        if metrics := self._metrics():
            choice.clear_options().add_options([Text(metric) for metric in metrics])
            choice.highlighted = metrics.index(self._shown_metric(metrics))
            choice.display, self.query_one("#chart").display = True, False
            choice.focus()

    def action_close_choice(self) -> None:
        """Go back from the list to the chart."""
        self.query_one("#choice").display, self.query_one("#chart").display = False, True
        self.set_focus(None)
        self._draw()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Show the metric that was chosen in the list."""
        self._metric = str(event.option.prompt)
        self.action_close_choice()

    def action_smooth(self) -> None:
        """Take more records together, and after the most none."""
        self._window = _WINDOWS[(_WINDOWS.index(self._window) + 1) % len(_WINDOWS)]
        self._draw()

    def action_log(self) -> None:
        """Switch between a linear and a logarithmic scale."""
        self._is_log = not self._is_log
        self._draw()

    def action_x_axis(self) -> None:
        """Switch between steps and time."""
        self._x = "wall_time" if self._x == "step" else "step"
        self._draw()

    def action_band(self) -> None:
        """Switch between a line for each seed of a run and their mean with a band."""
        self._band = not self._band
        self._draw()

    def _metrics(self) -> list[str]:
        return list(dict.fromkeys(metric for run in self._runs for metric in run.metrics))

    def _shown_metric(self, metrics: list[str]) -> str:
        if self._metric in metrics:
            return str(self._metric)
        return return_metric(metrics) or metrics[0]

    def _draw(self) -> None:
        self._draw_head()
        chart, foot = self.query_one(_Chart), self.query_one("#foot", Static)
        metrics = self._metrics()
        if not metrics:
            waiting = self._waiting if not self._runs else "Reading, or waiting for a record…"
            chart.show(lambda *_: Text(f"\n  {waiting}\n"))
            foot.update("")
            return
        metric = self._shown_metric(metrics)
        lines, legend = self._lines(metric)
        foot.update(self._foot(metric, metrics, legend))
        chart.show(partial(draw, lines, log=self._is_log))

    def _draw_head(self) -> None:
        head = Text()
        for nth, run in enumerate(self._runs[:_ROWS]):
            head.append_text(_bullet(nth)).append(run.name, "bold")
            if run.error:
                head.append(f"  {run.error}\n", "red")
                continue
            state = run.state.state if run.state.state != "unknown" else "no logger"
            colour = {"running": "green", "crashed": "red"}.get(state, "")
            head.append(f"  {state}", colour)
            head.append(f"  step {short(run.step)}")
            if run.state.state == "running" and run.came is not None:
                head.append(f"  {duration(time.monotonic() - run.came)} ago", "dim")
            head.append("\n")
        for nth, run in enumerate(self._runs[_ROWS:], start=_ROWS):  # these share a row or two
            head.append_text(_bullet(nth)).append(f"{run.name}  ")
        head.rstrip()
        self.query_one("#head", Static).update(head)

    def _lines(self, metric: str) -> tuple[list[Line], Text]:
        """The curves of a metric, and what says which is which within a run."""
        lines: list[Line] = []
        legend = Text()
        for nth, run in enumerate(self._runs):
            curves = {
                label: (x, smooth(y, self._window))
                for label, (x, y) in run.curves(metric, self._x).items()
            }
            if self._band and len(curves) > 1:
                colour = _COLOURS[nth % len(_COLOURS)]
                dim = (colour[0] // 2, colour[1] // 2, colour[2] // 2)
                x, mean, low, high = mean_and_range(list(curves.values()))
                lines += [Line(x, low, dim), Line(x, high, dim), Line(x, mean, colour)]
                for x, y in curves.values():  # for their marks
                    lines.append(Line(x[~np.isfinite(y)], y[~np.isfinite(y)], colour))
                legend.append(f"mean and range of {len(curves)} curves  ")
                continue
            for which, (label, (x, y)) in enumerate(curves.items()):
                # Of one run, each curve has its colour; of several, each run.
                colour = _COLOURS[(which if len(self._runs) == 1 else nth) % len(_COLOURS)]
                lines.append(Line(x, y, colour))
                if len(self._runs) == 1 and label:
                    legend.append("● ", f"rgb{colour}".replace(" ", ""))
                    legend.append(f"{label}  ")
        return lines, legend

    def _foot(self, metric: str, metrics: list[str], legend: Text) -> Text:
        foot = Text()
        foot.append(f"{metric}", "bold").append(f" {metrics.index(metric) + 1}/{len(metrics)}")
        foot.append(f" · x: {'steps' if self._x == 'step' else 'seconds'}")
        smoothing = f"mean of {self._window} records" if self._window > 1 else "off"
        foot.append(f" · smooth: {smoothing} · y: {'log' if self._is_log else 'linear'}")
        for run in self._runs:
            if run.fraction < 1:
                foot.append(f" · sample: {run.fraction:.1%} of {size(run.bytes)}", "yellow")
                break
        for run in self._runs:
            if (found := run.nonfinite(metric)) is not None:
                count, step, value = found
                seen = "in the sample " if run.fraction < 1 else ""
                seen += f"of {run.name} " if len(self._runs) > 1 else ""
                foot.append(
                    f"\n{count} not finite {seen}(x ▲ ▼): {value:g} at step {short(step)}", "red"
                )
                break
        # A user's own check speaks of no metric; the others are seen with theirs.
        for run in self._runs:
            if alerts := [alarm for alarm in run.alarms if alarm.metric is None]:
                of = f" of {run.name}" if len(self._runs) > 1 else ""
                last = alerts[-1]
                foot.append(f"\nalert{of}: {last.message} at step {short(last.step)}", "red")
                break
        return foot.append("\n").append_text(legend) if legend else foot


def _bullet(nth: int) -> Text:
    """What shows a run's colour beside its name."""
    return Text("● ", f"rgb{_COLOURS[nth % len(_COLOURS)]}".replace(" ", ""))

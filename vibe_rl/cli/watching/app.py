"""The screen of `vibe-rl watch`: a chart, what it shows, and the keys."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator, Sequence
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
from textual.widgets.option_list import Option

from vibe_rl.cli.text import duration, printable, short, size
from vibe_rl.cli.watching.chart import RGB, Floats, Line, draw
from vibe_rl.cli.watching.live_run import LiveRun, XAxis
from vibe_rl.metrics.reading.fields import instead_of, return_metric
from vibe_rl.plotting import aggregate
from vibe_rl.plotting.colours import GREEN, ORANGE, PURPLE, SKY, VERMILION, YELLOW

# Between two looks at the files: a reader of a few bytes costs the training run nothing.
_LOOK_S = 1.0
_WINDOWS = (1, 10, 100, 1000)
# So many runs have a row of their own at the top.
_ROWS = 4
# As far as they stand out on black.
_COLOURS = (SKY, ORANGE, GREEN, YELLOW, PURPLE, VERMILION, "#C8C8C8")
# After each round of colours comes a darker one, with another mark.
_ROUNDS = (("●", 1.0), ("○", 0.6), ("◆", 0.4))


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
    #foot { height: auto; max-height: 6; text-wrap: nowrap; text-overflow: ellipsis; }
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
        self.broken: Exception | None = None  # what ended it, if it wasn't the user

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

    def _handle_exception(self, error: Exception) -> None:
        # Textual's own, private as it is: else it leaves with pages of traceback, and exit code 0.
        self.broken = self.broken or error
        super()._handle_exception(error)

    def _print_error_renderables(self) -> None:
        """Leave it to the command to say in a line what happened."""

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
            choice.clear_options().add_options(
                [Option(printable(metric), id=str(n)) for n, metric in enumerate(metrics)]
            )
            choice.highlighted = metrics.index(self._shown_metric(metrics))
            choice.display, self.query_one("#chart").display = True, False
            choice.focus()
            self.query_one("#foot", Static).update("↑↓ Enter: show the metric · Esc: back")

    def action_close_choice(self) -> None:
        """Go back from the list to the chart."""
        self.query_one("#choice").display, self.query_one("#chart").display = False, True
        self.set_focus(None)
        self._draw()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Show the metric that was chosen in the list."""
        self._metric = self._metrics()[int(event.option.id or 0)]
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
        if not self.query_one("#choice").display:
            foot.update(self._foot(metric, metrics, lines, legend))
        chart.show(partial(draw, lines, log=self._is_log))

    def _draw_head(self) -> None:
        head = Text()
        for nth, run in enumerate(self._runs[:_ROWS]):
            head.append_text(_bullet(nth)).append(printable(run.name), "bold")
            if run.error:
                head.append(f"  {printable(run.error)}\n", "red")
                continue
            if run.state is None:
                head.append("  reading…\n", "dim")
                continue
            state = run.state.state if run.state.state != "unknown" else "no logger"
            colour = {"running": "green", "crashed": "red"}.get(state, "")
            head.append(f"  {state}", colour)
            if run.step is not None:
                head.append(f"  step {short(run.step)}")
            if run.state.state == "running" and run.came is not None:
                head.append(f"  {duration(time.monotonic() - run.came)} ago", "dim")
            if run.fraction < 1:
                head.append(f"  sample: {run.fraction:.1%} of {size(run.bytes)}", "yellow")
            head.append("\n")
        for nth, run in enumerate(self._runs[_ROWS:], start=_ROWS):  # these share a row or two
            head.append_text(_bullet(nth)).append(f"{printable(run.name)}  ")
            if run.fraction < 1:
                head.append(f"sample: {run.fraction:.1%}  ", "yellow")
        head.rstrip()
        self.query_one("#head", Static).update(head)

    def _lines(self, metric: str) -> tuple[list[Line], Text]:
        """The curves of a metric, and what says which is which within a run."""
        lines: list[Line] = []
        legend = Text()
        for nth, run in enumerate(self._runs):
            curves = run.curves(metric, self._x, self._window)
            if self._band and len(curves) > 1 and (drawn := _band(curves, _colour(nth))):
                lines += drawn
                legend.append(f"mean and range of {len(curves)} curves  ")
                continue
            for which, (label, (x, y)) in enumerate(curves.items()):
                # Of one run, each curve has its colour; of several, each run.
                number = which if len(self._runs) == 1 else nth
                lines.append(Line(x, y, _colour(number)))
                if len(self._runs) == 1 and label:
                    legend.append_text(_bullet(number)).append(f"{printable(label)}  ")
        return lines, legend

    def _foot(self, metric: str, metrics: list[str], lines: list[Line], legend: Text) -> Text:
        foot = Text()
        foot.append(printable(metric), "bold")
        foot.append(f" {metrics.index(metric) + 1}/{len(metrics)}")
        foot.append(f" · x: {'steps' if self._x == 'step' else 'seconds'}")
        foot.append(f" · y: {'log' if self._is_log else 'linear'}")
        if self._is_log and (left_out := sum(int((line.y <= 0).sum()) for line in lines)):
            foot.append(f" (≤ 0, left out: {short(left_out)})", "yellow")
        smoothing = f"mean of {self._window} records" if self._window > 1 else "off"
        foot.append(f" · smooth: {smoothing}")
        if self._metric and metric != self._metric:
            instead = instead_of(self._metric, metrics)
            note = printable(f"no metric {self._metric!r} yet; {instead}")
            foot.append("\n").append(note, "yellow")
        for warning in self._warnings(metric):
            foot.append("\n").append(printable(warning), "red")
        return foot.append("\n").append_text(legend) if legend else foot

    def _warnings(self, metric: str) -> Iterator[str]:
        """What isn't finite, of any metric and run, and what users' own checks have found."""
        several = len(self._runs) > 1
        seen, elsewhere, alerts = [], [], []
        for run in self._runs:
            of = f" of {run.name}" if several else ""
            alarms = {alarm.metric: alarm for alarm in run.alarms}
            if (found := run.nonfinite(metric)) is not None:
                count, step, value = found
                sample = " in the sample" if run.fraction < 1 else ""
                at = f"{value:g} at step {short(step)}"
                seen.append(f"{count} not finite{sample}{of} (x ▲ ▼): {at}")
            elif metric in alarms:  # which has seen every record
                seen.append(f"{alarms[metric].message}{of}, not in the sample")
            names = dict.fromkeys([*filter(None, alarms), *run.nonfinite_metrics])
            if others := [name for name in names if name != metric]:
                elsewhere.append(", ".join(others) + of)
            if (last := alarms.get(None)) is not None:  # a user's own check speaks of no metric
                where = "" if last.step is None else f" at step {short(last.step)}"
                alerts.append(f"alert{of}: {last.message}{where}")
        if seen:
            yield "; ".join(seen)
        if elsewhere:
            yield f"not finite either: {'; '.join(elsewhere)}"
        if alerts:
            yield "; ".join(alerts)


def _band(curves: dict[str, tuple[Floats, Floats]], colour: RGB) -> list[Line]:
    """A mean between the least and the greatest, as plots have it; nothing if it can't be."""
    try:
        curve = aggregate(list(curves.values()), band="range")
    except ValueError:
        return []
    red, green, blue = colour
    dim = (red // 2, green // 2, blue // 2)
    lines = [Line(curve.x, curve.low, dim), Line(curve.x, curve.high, dim)]
    lines.append(Line(curve.x, curve.y, colour))
    for x, y in curves.values():  # for their marks
        lines.append(Line(x[~np.isfinite(y)], y[~np.isfinite(y)], colour))
    return lines


def _colour(nth: int) -> RGB:
    """The colour of a run, or of one of a run's curves."""
    colour = _COLOURS[nth % len(_COLOURS)]
    _, light = _ROUNDS[nth // len(_COLOURS) % len(_ROUNDS)]
    red, green, blue = (int(int(colour[at : at + 2], 16) * light) for at in (1, 3, 5))
    return red, green, blue


def _bullet(nth: int) -> Text:
    """What shows a colour beside a name."""
    mark, _ = _ROUNDS[nth // len(_COLOURS) % len(_ROUNDS)]
    return Text(f"{mark} ", f"rgb{_colour(nth)}".replace(" ", ""))

"""Curves as a chart of characters: axes at round numbers, gaps and marks where a value is NaN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from plotille import Canvas
from rich.text import Text

from vibe_rl.cli.text import short
from vibe_rl.metrics.reading.downsampling import downsample

Floats = NDArray[np.float64]
RGB = tuple[int, int, int]

_NOT_FINITE: RGB = (255, 80, 80)
# The y axis' labels and its line take so many columns at least; the x axis takes two rows.
_LEFT = 9
_BELOW = 2
_LABEL_WIDTH = 12
# Beyond these widths of an axis, what is computed of them may be no float.
_WIDEST, _NARROWEST = 1e300, 1e-290
_MOST = 1.797e308
_SHRUNK = 1e10


@dataclass(frozen=True)
class Line:
    """A curve to draw.

    Attributes:
        x: Where its points are, in ascending order.
        y: Their heights; non-finite ones are gaps, with a mark.
        colour: Its red, green and blue, to 255.
    """

    x: Floats
    y: Floats
    colour: RGB


def draw(lines: Sequence[Line], width: int, height: int, *, log: bool = False) -> Text:
    """Draw curves into `height` rows of `width` characters.

    Args:
        lines: The curves; a later one is above.
        width: The columns there are, axes included.
        height: The rows there are, axes included.
        log: Draw the logarithm of y; what is not positive is left out.

    Returns:
        The chart; a message if it has nothing to show, or no room.
    """
    rows = height - _BELOW
    seen = [_heights(line, log=log) for line in lines]
    shown = [y[np.isfinite(y)] for y in seen]
    x_low, x_high = _range([line.x for line in lines])
    y_low, y_high = _range(shown)
    y_ticks = {
        int(_scale(np.array(tick), y_low, y_high, 4 * rows - 1)) // 4: label
        for tick, label in _y_ticks(y_low, y_high, max(rows // 3, 2), log=log)
    }
    left = max(_LEFT, 2 + max(map(len, y_ticks.values()), default=0))
    columns = width - left
    if columns < 10 or rows < 2:
        return Text("too small a window")
    canvas = Canvas(columns, rows, 0, 0, 2 * columns, 4 * rows, mode="rgb")
    for line, y in zip(lines, seen, strict=True):
        x_dots = _scale(line.x, x_low, x_high, 2 * columns - 1)
        _draw_curve(canvas, x_dots, _scale(y, y_low, y_high, 4 * rows - 1), line.colour, columns)
    for line in lines:
        _mark(canvas, line, _scale(line.x, x_low, x_high, 2 * columns - 1), rows)
    if not any(len(y) for y in shown):
        note = "nothing positive to show on a log scale" if log else "no finite value yet"
        return Text(f"\n{' ' * _LEFT}{note}")
    chart = Text()
    for nth, row in enumerate(canvas.plot("\n").split("\n")):
        label = y_ticks.get(rows - 1 - nth)
        chart.append(f"{label or '':>{left - 2}} {'┤' if label else '│'}", "dim")
        chart.append_text(Text.from_ansi(row)).append("\n")
    return chart.append_text(_x_axis(x_low, x_high, columns, left))


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers from `low` to `high`: about `count` of them, at steps of 1, 2 or 5."""
    if high / 2 - low / 2 > _WIDEST:  # where the distance of two floats may be no float
        shrunk = ticks(low / _SHRUNK, high / _SHRUNK, count)
        return [min(max(tick * _SHRUNK, low), high) for tick in shrunk]
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.ceil(low / step), math.floor(high / step + 1e-9)
    # Rounded, for 3 * 0.1 is no 0.3.
    return [round(nth * step, 12 - math.floor(math.log10(step))) for nth in range(first, last + 1)]


def _heights(line: Line, *, log: bool) -> Floats:
    y = np.where(np.isfinite(line.y), line.y, np.nan)
    if log:
        y = np.log10(np.where(y > 0, y, np.nan))
    return y


def _range(parts: Sequence[Floats]) -> tuple[float, float]:
    """The least and the greatest of all, some way apart also if they are one."""
    there = [part for part in parts if len(part)]
    if not there:
        return 0.0, 1.0
    low, high = min(float(part.min()) for part in there), max(float(part.max()) for part in there)
    largest = max(abs(low), abs(high))
    if high / 2 - low / 2 > max(1e-12 * largest, _NARROWEST):
        return low, high
    margin = largest / 10 if largest > _NARROWEST else 1.0
    return max(low - margin, -_MOST), min(high + margin, _MOST)


def _scale(values: Floats, low: float, high: float, dots: int) -> Floats:
    """Which dot each value falls on, from 0 to `dots`."""
    # Divided first: the distance of two floats may be no float.
    return np.asarray(np.rint((values / 2 - low / 2) / (high / 2 - low / 2) * dots))


def _draw_curve(canvas: Canvas, x: Floats, y: Floats, colour: RGB, columns: int) -> None:
    x, y = downsample(x, y, 12 * columns)
    before: tuple[float, float] | None = None
    for point in zip(x.tolist(), y.tolist(), strict=True):
        if math.isnan(point[1]):
            before = None
            continue
        canvas.line(*(before or point), *point, color=colour)
        before = point


def _mark(canvas: Canvas, line: Line, x: Floats, rows: int) -> None:
    """A mark at the edge for each value that isn't finite: an x, or the way that it goes."""
    for mark, which, row in (
        ("x", np.isnan(line.y), 0),
        ("▲", line.y == np.inf, rows - 1),
        ("▼", line.y == -np.inf, 0),
    ):
        for column in np.unique((x[which] // 2).astype(int)).tolist():
            canvas.text(2 * column + 0.5, 4 * row + 0.5, mark, color=_NOT_FINITE)


def _y_ticks(low: float, high: float, count: int, *, log: bool) -> list[tuple[float, str]]:
    """The ticks' places and labels."""
    if not log:
        return [(tick, short(tick)) for tick in ticks(low, high, count)]
    low, high = max(low, math.log10(_NARROWEST)), min(high, 308.0)
    if high <= low:
        return []
    powers = range(math.ceil(low), math.floor(high) + 1)
    if len(powers) >= 2:
        every = math.ceil(len(powers) / count)
        return [(power, short(10.0**power)) for power in powers[::every]]
    return [(math.log10(tick), short(tick)) for tick in ticks(10**low, 10**high, count) if tick > 0]


def _x_axis(low: float, high: float, columns: int, left: int) -> Text:
    line, labels = ["─"] * columns, [" "] * (columns + left)
    free = 0
    for tick in ticks(low, high, columns // _LABEL_WIDTH):
        column = int(_scale(np.array(tick), low, high, 2 * columns - 1)) // 2
        label = short(tick)
        start = min(left + column - len(label) // 2, len(labels) - len(label))
        line[column] = "┴"
        if start >= free:
            labels[start : start + len(label)] = label
            free = start + len(label) + 1
    return Text(f"{' ' * (left - 1)}└{''.join(line)}\n{''.join(labels)}", "dim")

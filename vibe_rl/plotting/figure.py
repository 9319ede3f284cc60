"""The figure: a line a group, its band, and marks where a seed wasn't finite."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vibe_rl.plotting.aggregate import Band, Center, Curve, aggregate, check_band
from vibe_rl.plotting.colours import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION
from vibe_rl.plotting.groups import Run
from vibe_rl.plotting.lines import Seeds, read_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Without yellow, which is too pale for a line.
_COLOURS = [BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, "#000000"]
_DASHES = ["-", "--", ":", "-."]
_BANDS = {
    "se": "± standard error",
    "ci": "with 95 % bootstrap interval",
    "range": "and range",
    "none": "",
}
_CENTERS = {"mean": "mean", "median": "median", "iqm": "interquartile mean"}
# What is read of all runs together: more would take longer than anybody waits for a plot.
_MOST_BYTES = 64 << 20
_MARK = "NaN or infinite"
# At most so many marks a line.
_MARKS = 40
# More names cover the lines: they stand beside them.
_NAMES_INSIDE = 6


def plot_runs(
    groups: Mapping[str, Sequence[Run]],
    metric: str = "episode_return",
    *,
    x: str = "step",
    center: Center = "mean",
    band: Band | None = None,
    smooth: int = 1,
    log_y: bool = False,
    most_bytes: int | None = _MOST_BYTES,
) -> Figure:
    """Plot a metric of groups of runs: a line a group, with a band over its seeds.

    Each run is a seed, or, if its records have a field `seed`, `lane` or `process`, several; those
    of its records that have none are then a line of their own. A line has a gap where any of its
    seeds is NaN or infinite, and crosses at the bottom say where. It ends with the seed that ends
    first. A run or a group that can't be drawn is left out with a warning, if anything is left.

    Args:
        groups: The lines' names, and each one's runs; see `group_runs`.
        metric: What to plot; that of a mapping is `"eval/return"`.
        x: Over what: `"step"`, `"wall_time"` in seconds, or another field.
        center: What the line is of the seeds: `"mean"`, `"median"` or `"iqm"`, the interquartile
            mean.
        band: `"se"`: the standard error, only of the mean; `"ci"`: the bootstrap's 95 % confidence
            interval; `"range"`: from the least to the greatest; `"none"`. None takes the first for
            the mean, the second otherwise.
        smooth: How many records a moving average is over. The y axis says so.
        log_y: Whether the y axis is logarithmic; what isn't positive is left out.
        most_bytes: About how much to read of all files together; larger ones are sampled, which
            the figure says. None reads all.

    Returns:
        A figure; nothing global is touched, and no window is opened. See `save_figure`.

    Raises:
        ImportError: If matplotlib isn't installed.
        ValueError: If no group can be drawn: there is no such metric, or nothing positive of it
            for a logarithmic axis, or the seeds have no steps in common.

    Examples:
        >>> with MetricsLogger("runs/dqn/logs/metrics.jsonl") as logger:
        ...     logger.write_batch({"step": range(100), "episode_return": range(100)})
        >>> figure = plot_runs({"DQN": ["runs/dqn"]}, smooth=10)
        >>> figure.axes[0].set_xlim(0, 100)
        (0.0, 100.0)
        >>> save_figure(figure, "curves.png").name
        'curves.png'
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - optional
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ImportError("plots need matplotlib: pip install 'vibe-rl[plot]'") from error

    band = band or ("se" if center == "mean" else "ci")
    check_band(center, band)

    def make(seeds: Seeds) -> Curve:
        curve = aggregate(seeds, center=center, band=band, smooth=smooth)
        if log_y and not (curve.y > 0).any():
            lacking = "positive" if np.isfinite(curve.y).any() else "finite"
            raise ValueError(f"no value of {metric} is {lacking}, for a logarithmic axis")
        return curve

    lines = read_lines(groups, metric, x, most_bytes=most_bytes, make=make)
    for warning in lines.left_out:
        warnings.warn(warning, stacklevel=2)
    curves = lines.curves
    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if log_y:
        axes.set_yscale("log", nonpositive="mask")
    styles = cycle([(colour, dash) for dash in _DASHES for colour in _COLOURS])
    for (label, curve), (colour, dash) in zip(curves.items(), styles, strict=False):
        axes.plot(curve.x, curve.y, color=colour, linestyle=dash, linewidth=1.5, label=label)
        axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)
        _mark(axes, curve, colour)
    _dress(axes, metric, x, smooth)
    notes = _name_lines(figure, axes)
    if any(curve.seeds > 1 for curve in curves.values()):
        notes.append(f"{_CENTERS[center]} {_BANDS[band]}".strip())
    if log_y and any((curve.y <= 0).any() for curve in curves.values()):
        notes.append("what isn't positive is left out")
    if lines.fraction < 1:
        notes.append(f"a sample: {_percent(lines.fraction)} of the files")
    axes.set_title("; ".join(notes), fontsize=8, color="0.35", loc="left")
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure to a file.

    Args:
        figure: What `plot_runs` gave.
        path: The file; its suffix says the format: `.png`, `.svg` or `.pdf`. Its directory is made.

    Returns:
        The path.

    Raises:
        ValueError: If the suffix is another.

    Examples:
        >>> from matplotlib.figure import Figure
        >>> save_figure(Figure(), "plots/empty.svg").name
        'empty.svg'
    """
    from matplotlib import rc_context  # noqa: PLC0415 - optional

    path = Path(path)
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ValueError(f"a plot is a .png, .svg or .pdf file, not {path.name!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"pdf.fonttype": 42}):  # TrueType: text that journals take, and that is found
        figure.savefig(path)
    return path


def _mark(axes: Axes, curve: Curve, colour: str) -> None:
    """Show what a line alone would not: points without neighbours, and where it isn't finite."""
    gaps = np.concatenate([[True], ~np.isfinite(curve.y), [True]])
    alone = ~gaps[1:-1] & gaps[:-2] & gaps[2:]
    if alone.any():
        axes.plot(curve.x[alone], curve.y[alone], color=colour, linestyle="none", marker=".")
    places = curve.nonfinite
    if not len(places):
        return
    if len(places) > _MARKS:
        places = places[np.linspace(0, len(places) - 1, _MARKS).astype(int)]
    axes.plot(
        places,
        np.full(len(places), 0.02),
        transform=axes.get_xaxis_transform(),
        color=colour,
        linestyle="none",
        marker="x",
        markersize=5,
        label=None if _MARK in axes.get_legend_handles_labels()[1] else _MARK,
    )


def _dress(axes: Axes, metric: str, x: str, smooth: int) -> None:
    from matplotlib.ticker import EngFormatter  # noqa: PLC0415 - optional

    axes.set_xlabel({"wall_time": "wall time (s)"}.get(x, x.replace("_", " ")))
    average = f"\n(moving average over {smooth} records)" if smooth > 1 else ""
    axes.set_ylabel(metric.replace("_", " ").replace("/", " / ") + average)
    low, high = axes.get_xlim()
    if high - low >= 1000:  # else "5m" for 0.005, and "1P" at each of the steps about 1e15
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.margins(x=0.02)


def _name_lines(figure: Figure, axes: Axes) -> list[str]:
    """Say which line is which; a single one's name is given back."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) < 2:
        return labels
    if len(labels) <= _NAMES_INSIDE:
        axes.legend(frameon=False, fontsize=8)
    else:
        figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8)
    return []


def _percent(fraction: float) -> str:
    digits = max(0, 1 - math.floor(math.log10(100 * fraction)))
    return f"{100 * fraction:.{digits}f} %"

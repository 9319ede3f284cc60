"""A report as pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.results import Report, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

IMAGES = Path(__file__).parents[1] / "docs" / "images"
OURS, PEER = "#1f77b4", "#9a9a9a"


def draw(report: Report, path: Path) -> None:
    """Draw what has a picture, one below the other, to a file of matplotlib's kinds."""
    names = [name for name in PICTURES if report.results.get(name)]
    if names:
        _draw(report, names, path)


def write_docs(report: Report, directory: Path = IMAGES) -> None:
    """Draw each benchmark's picture to a file of its own."""
    directory.mkdir(exist_ok=True)
    for name in PICTURES:
        if report.results.get(name):
            _draw(report, [name], directory / f"{name}.svg")


def _draw(report: Report, names: list[str], path: Path) -> None:
    # The same report gives the same bytes; text stays text; both modes of a page can be read.
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    settings = {"svg.hashsalt": "vibe_rl", "svg.fonttype": "none", "font.size": 9}
    with mpl.rc_context(settings):
        figure, axes = plt.subplots(
            len(names), figsize=(8, 4.5 * len(names)), layout="constrained", squeeze=False
        )
        for name, each in zip(names, axes[:, 0], strict=True):
            PICTURES[name](each, report.results[name])
            each.spines[["top", "right"]].set_visible(False)
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(path, metadata=metadata, facecolor="white", dpi=150)
        plt.close(figure)


def _loop(axes: Axes, results: list[Result]) -> None:
    _bars(axes, results, "a step of 150 µs", "x reading", from_value=1)
    axes.set_title("A training loop of 150 µs a step, each step logged", loc="left")
    axes.set_xlabel("multiple of the time of the same loop that reads the values and logs nothing")


def _write(axes: Axes, results: list[Result]) -> None:
    _bars(axes, results, "5 fresh JAX scalars", "p50, µs")
    axes.set_title("One call with five fresh JAX scalars", loc="left")
    axes.set_xlabel("µs on the caller's thread, median")


def _growth(axes: Axes, results: list[Result]) -> None:
    tables = dict.fromkeys(result.table for result in results)
    for table in tables:
        points = [
            (float(each.case), next(iter(each.figures.values())).median)
            for each in results
            if each.table == table and _is_number(each.case) and each.figures
        ]
        if points:
            first = min(points)
            largest = max(points)[0]
            axes.loglog(
                [(size or 1) / largest for size, _ in points],
                [cost / first[1] for _, cost in points],
                marker="o",
                markersize=3,
                label=table,
            )
    axes.set_title("How costs grow", loc="left")
    axes.set_xlabel("size, as a fraction of the largest measured")
    axes.set_ylabel("cost, of that of the smallest")
    axes.legend(frameon=False)


def _bars(
    axes: Axes, results: list[Result], table: str, column: str, *, from_value: float | None = None
) -> None:
    """One bar for each case, longest last, on a logarithmic scale, with its quartiles."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    shown = sorted(
        (
            each
            for each in results
            if each.table == table
            and column in each.figures
            and not each.case.startswith("reads")  # for these log nothing
        ),
        key=lambda each: -each.figures[column].median,
    )
    figures = [each.figures[column] for each in shown]
    smallest = min(figure.low for figure in figures)
    start = from_value or smallest / 2
    colours = [OURS if each.case.startswith("vibe_rl") else PEER for each in shown]
    widths = [figure.median - start for figure in figures]
    spread = [
        [figure.median - figure.low for figure in figures],
        [figure.high - figure.median for figure in figures],
    ]
    names = [each.case for each in shown]
    axes.barh(names, widths, left=start, color=colours, xerr=spread, ecolor="#444444")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(min(start, smallest) * 0.97)
    for nth, figure in enumerate(figures):
        axes.annotate(
            f" {figure.median:.3g}",
            (max(figure.high, start), nth),  # outside a bar that ends short of the start, too
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
        )
    axes.margins(x=0.1)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


PICTURES: dict[str, Callable[[Axes, list[Result]], None]] = {
    "write": _write,
    "loop": _loop,
    "growth": _growth,
}

"""What a figure draws: a curve for each group of runs, or why there is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from vibe_rl.metrics.reading.blocks import metrics_files
from vibe_rl.metrics.reading.fields import instead_of
from vibe_rl.metrics.reading.series import numeric_fields, read_series
from vibe_rl.metrics.reading.tail import most_of_each
from vibe_rl.plotting.aggregate import Curve, Floats
from vibe_rl.plotting.groups import Run

Seeds = list[tuple[Floats, Floats]]

# A seed that ends so much of the width before the others has died.
_EARLY = 0.05


class LeftOutWarning(UserWarning):
    """Something can't be drawn beside what can.

    Args:
        message: What, and why.
        runs: How many runs it is.
    """

    def __init__(self, message: str, runs: int) -> None:
        super().__init__(message)
        self.runs = runs


@dataclass
class Lines:
    """The lines of a figure.

    Attributes:
        curves: By what the legend says of each.
        left_out: What isn't among them.
        fraction: How much of all files was read; 1.0 is all.
    """

    curves: dict[str, Curve] = field(default_factory=dict)
    left_out: list[LeftOutWarning] = field(default_factory=list)
    fraction: float = 1.0


def read_lines(
    groups: Mapping[str, Sequence[Run]],
    metric: str,
    x: str,
    *,
    most_bytes: int | None,
    make: Callable[[Seeds], Curve],
) -> Lines:
    """Read the lines of a figure.

    Args:
        groups: The lines' names, and each one's runs.
        metric: What to plot.
        x: Over what.
        most_bytes: About how much to read of all files together; None reads all.
        make: Makes one curve of several seeds', or raises `ValueError`.

    Raises:
        ValueError: If there is none.
    """
    files = {run: metrics_files(run) for runs in groups.values() for run in runs}
    most = most_of_each([each for found in files.values() for each in found], most_bytes)
    lines = Lines()
    size = read = 0.0
    for name, runs in groups.items():
        seeds: Seeds = []
        others: Seeds = []  # of the records without a label beside those that have one
        lacking = []
        for run in runs:
            series = read_series(run, [metric], x=x, most_bytes=most).get(metric)
            if series is None:
                lacking.append(run)
                continue
            curves = series.curves()
            if len(curves) > 1 and "" in curves:
                others.append(curves.pop(""))
            seeds += curves.values()
            bytes_ = sum(file.stat().st_size for file in files[run] if file.exists())
            size, read = size + bytes_, read + bytes_ * series.fraction
        if lacking:
            which = f"{len(lacking)} of {len(runs)} runs: " if len(lacking) < len(runs) else ""
            why = f"{name}: {which}{_why_not(lacking, metric, x)}"
            lines.left_out.append(LeftOutWarning(why, len(lacking)))
        for line, parts in ((name, seeds), (f"{name}, without a label", others)):
            try:
                if parts:
                    curve = make(parts)
                    lines.curves[_label(line, curve, parts)] = curve
            except ValueError as error:
                drawn = len(runs) - len(lacking) if parts is seeds else 0
                lines.left_out.append(LeftOutWarning(f"{line}: {error}", drawn))
    if not lines.curves:
        raise ValueError(str(lines.left_out[0]) if lines.left_out else "there is no run to plot")
    lines.fraction = read / size
    return lines


def _why_not(runs: Sequence[Run], metric: str, x: str) -> str:
    there = dict.fromkeys(name for run in runs for name in numeric_fields(run))
    for name in (metric, x):
        if name not in there:
            return f"no record has numbers {name!r}; {instead_of(name, there)}"
    return f"no record has both numbers, {metric!r} and {x!r}"


def _label(line: str, curve: Curve, seeds: Seeds) -> str:
    if curve.seeds == 1:
        return line
    longest = max(x[-1] for x, _ in seeds)
    end = curve.x[-1]
    is_early = longest - end > _EARLY * (longest - curve.x[0])
    return f"{line} ({curve.seeds} seeds{f', one ends at {end:g}' if is_early else ''})"

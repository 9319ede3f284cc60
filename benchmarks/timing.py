"""What the benchmarks share: cases that take turns, summaries, a table, and the machine."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np


def timed(function: Callable[..., object], *args: Any) -> int:
    """Nanoseconds that one call takes."""
    start = time.perf_counter_ns()
    function(*args)
    return time.perf_counter_ns() - start


def in_turn(cases: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Run every case once a round, so that whatever else the machine does meets all of them alike.

    The order goes forwards and backwards by turns. A first round warms up and isn't counted.

    Args:
        cases: By name, what to run. Returns the nanoseconds it took, or an array of such.
        rounds: How many rounds count.

    Returns:
        By name, microseconds, with the rounds as first axis.
    """
    taken: dict[str, list[Any]] = {name: [] for name in cases}
    for turn in range(rounds + 1):
        for name in cases if turn % 2 else reversed(cases):
            result = cases[name]()
            if turn:
                taken[name].append(result)
    return {name: np.asarray(each) / 1e3 for name, each in taken.items()}


def print_percentiles(measured: Mapping[str, np.ndarray]) -> None:
    """Print the microseconds of each case by percentile."""
    percentiles = (50, 90, 99, 99.9)
    rows = [
        [name, *(f"{np.percentile(each, percentile):.2f}" for percentile in percentiles)]
        for name, each in measured.items()
    ]
    print_table(["µs", *(f"p{percentile}" for percentile in percentiles)], rows)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, its first column flush left."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, ["-" * width for width in widths], *rows):
        first, *rest = zip(row, widths, strict=True)
        print(first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest), sep="  ")


def median_and_quartiles(values: Iterable[float], digits: int = 3) -> str:
    """The median, and between which values the middle half lies."""
    low, median, high = np.quantile(np.asarray(values), [0.25, 0.5, 0.75])
    return f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def machine() -> str:
    """The machine and the versions, in a line."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    cpu = models[0] if models else platform.machine()
    return (
        f"{os.cpu_count()} cores of {cpu}, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, JAX {version('jax')}"
    )

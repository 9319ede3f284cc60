"""What the benchmarks share: cases that take turns, what is timed, and waiting for quiet."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import psutil

PERCENTILES = (50, 99, 99.9)


def timed(function: Callable[..., object], *args: Any) -> int:
    """Nanoseconds that one call takes."""
    start = time.perf_counter_ns()
    function(*args)
    return time.perf_counter_ns() - start


def in_turn(cases: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Run every case once a round, so that whatever else the machine does meets all of them alike.

    The order goes forwards and backwards by turns. A first round warms up and isn't counted.

    Args:
        cases: By name, what to run. Returns the nanoseconds it took, or an array of such, of one
            length for each round.
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


def tail(blocks: Sequence[Sequence[int]], quantile: float) -> float:
    """A quantile of what several blocks of one case took, all together."""
    return float(np.quantile(np.concatenate(blocks), quantile))


def settle(most_s: float = 2.0) -> None:
    """Wait until this process and its children do nothing any more, or for that long."""
    until = time.monotonic() + most_s
    before = _cpu_s()
    while time.monotonic() < until:
        time.sleep(0.05)
        after = _cpu_s()
        if after - before <= 0.01:  # a tick of the system's clock
            return
        before = after


def _cpu_s() -> float:
    used = 0.0
    this = psutil.Process()
    for process in (this, *this.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        used += times.user + times.system
    return used

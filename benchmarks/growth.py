"""How what a record costs grows with its metrics, the backends, the file and the run's length.

Costs are fitted as size to the power of an exponent, from the larger half of the sizes, where what
a call costs at any rate matters least: 1 is linear, 0 is flat.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import Peer
from benchmarks.results import Result, Spread
from benchmarks.timing import in_turn, timed
from vibe_rl.metrics import MetricsLogger

METRICS = (1, 3, 10, 30, 100, 300, 1000)
BACKENDS = (0, 1, 2, 4, 8)
FILE_BYTES = (10**6, 10**7, 10**8, 10**9)
RECORDS = (10_000, 100_000, 1_000_000)


class IdleBackend:
    """Takes records and does nothing with them."""

    def __init__(self, name: str) -> None:
        self.name = name

    def log(self, record: dict[str, Any], step: int | None = None) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def run(quick: bool, peers: Sequence[Peer]) -> list[Result]:
    """Measure each curve. The peers are left out: this is about our own promises."""
    del peers
    results = []
    for measure in (_by_metrics, _by_backends, _by_file_size, _by_run_length):
        with tempfile.TemporaryDirectory() as directory:
            results += measure(Path(directory), quick)
    return results


def _curve(table: str, column: str, costs: Mapping[int, np.ndarray]) -> list[Result]:
    points = [Result(table, str(size), {column: Spread.of(each)}) for size, each in costs.items()]
    larger = [size for size in costs if size][len(costs) // 2 - 1 :]
    exponent = np.polyfit(np.log(larger), np.log([np.median(costs[size]) for size in larger]), 1)[0]
    return [*points, Result(table, "fitted", {"exponent": Spread.of(exponent)})]


def _calls(logger: MetricsLogger, record: Mapping[str, Any], calls: int) -> float:
    """The nanoseconds of a call, as their median."""
    return float(np.median([timed(logger.write, record) for _ in range(calls)]))


def _by_metrics(directory: Path, quick: bool) -> list[Result]:
    with MetricsLogger(directory / "metrics.jsonl") as logger:
        cases = {}
        for metrics in METRICS:
            record = {f"metric_{index}": 1 / (index + 3) for index in range(metrics)}
            cases[str(metrics)] = functools.partial(_calls, logger, record, 20)
        costs = in_turn(cases, 2 if quick else 50)
    return _curve("metrics a record", "write, µs", {int(size): costs[size] for size in costs})


def _by_backends(directory: Path, quick: bool) -> list[Result]:
    with ExitStack() as stack:
        cases = {}
        for number in BACKENDS:
            backends = [IdleBackend(f"idle{nth}") for nth in range(number)]
            path = directory / str(number) / "metrics.jsonl"
            logger = stack.enter_context(MetricsLogger(path, backends))
            cases[str(number)] = functools.partial(_calls, logger, {"loss": 0.5}, 100)
        costs = in_turn(cases, 2 if quick else 50)
    return _curve("backends", "write, µs", {int(size): costs[size] for size in costs})


def _by_file_size(directory: Path, quick: bool) -> list[Result]:
    def prepared(size: int) -> Callable[[], Any]:
        path = directory / f"{size}.jsonl"
        with path.open("wb") as file:  # sparse: one long line of zeros takes no room on the disk
            file.seek(size - 1)
            file.write(b"\n")

        def opened() -> tuple[float, float]:
            loggers = []
            taken = timed(lambda: loggers.append(MetricsLogger(path)))
            with loggers.pop() as logger:
                return taken, _calls(logger, {"loss": 0.5}, 100)

        return opened

    costs = in_turn({str(size): prepared(size) for size in FILE_BYTES}, 1 if quick else 7)
    return [
        result
        for nth, what in enumerate(("opening, µs", "write, µs"))
        for result in _curve(
            f"bytes in the file: {what.partition(',')[0]}",
            what,
            {int(size): each[:, nth] for size, each in costs.items()},
        )
    ]


def _by_run_length(directory: Path, quick: bool) -> list[Result]:
    record = {"step": 1, "loss": 0.5}
    with ExitStack() as stack:
        cases = {}
        for length in RECORDS:
            path = directory / str(length) / "metrics.jsonl"
            logger = stack.enter_context(MetricsLogger(path, [IdleBackend("idle")]))
            for _ in range(length // 100 if quick else length):
                logger.write(record)
            logger.flush()
            cases[str(length)] = functools.partial(_calls, logger, record, 100)
        costs = in_turn(cases, 2 if quick else 50)
    return _curve("records written before", "write, µs", {int(size): costs[size] for size in costs})

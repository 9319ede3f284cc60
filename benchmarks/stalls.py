"""What the loop notices when what lies behind the logger stalls.

A call every half millisecond, in blocks with the stall and without, by turns. The disk: every write
to a file takes 200 ms more, by a shim around the C library's `write` (stalls.c, which needs a C
compiler and Linux). A peer that hands its records to a process of its own isn't met by it there.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import Log, Peer, peer_named
from benchmarks.results import Result, Spread
from benchmarks.timing import in_turn, tail, timed
from vibe_rl.metrics import MetricsLogger, WandbBackend, isolated

SHIM = Path(__file__).with_suffix(".c")
FLOATS = {f"metric_{index}": 1 / (index + 3) for index in range(7)}
DISK = "the disk stalls 200 ms at each write"
SLEEPING = "a backend sleeps 1 s a record"
NO_NETWORK = "W&B without a network"


class SleepingBackend:
    """Takes a second for each record while it is told to."""

    asleep = False

    def log(self, record: dict[str, Any], step: int | None = None) -> None:
        """Wait."""
        del record, step
        if self.asleep:
            time.sleep(1)

    def close(self) -> None:
        """There is nothing to do."""


def run(quick: bool, peers: Sequence[Peer]) -> list[Result]:
    """Measure each kind of stall."""
    return [
        *_stalled_disk(quick, peers),
        *_sleeping_backend(quick),
        *_no_network(quick, [peer for peer in peers if peer.name == "wandb"]),
    ]


def _compared(
    table: str,
    name: str,
    log: Log,
    stalled: Callable[[], AbstractContextManager[object]],
    *,
    quick: bool,
) -> Result:
    """Call it with the stall and without, by turns."""
    step = itertools.count()
    all_calls: dict[str, list[list[int]]] = {"with": [], "without": []}

    def block(kind: str) -> float:
        with stalled() if kind == "with" else nullcontext():
            until = time.monotonic() + (0.1 if quick else 1.0)
            calls = []
            while time.monotonic() < until:
                calls.append(timed(log, next(step), FLOATS))
                time.sleep(5e-4)
        all_calls[kind].append(calls)
        return float(np.median(calls))

    in_turn({kind: functools.partial(block, kind) for kind in all_calls}, 1 if quick else 4)
    for calls in all_calls.values():
        del calls[0]  # the round that isn't counted
    figures = {}
    for label, quantile in {"p50": 0.5, "p99.9": 0.999, "max": 1}.items():
        stalled_us, usual_us = (
            tail(all_calls[kind], quantile) / 1e3 for kind in ("with", "without")
        )
        figures[f"{label}, µs"] = Spread.of(stalled_us)
        figures[f"{label}, x without"] = Spread.of(stalled_us / usual_us)
    return Result(table, name, figures)


# -- the disk -----------------------------------------------------------------------------------


def _stalled_disk(quick: bool, peers: Sequence[Peer]) -> list[Result]:
    compiler = shutil.which("cc")
    if not compiler or not sys.platform.startswith("linux"):
        return [Result(DISK, "vibe_rl", why="needs Linux and a C compiler")]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        shim, files = Path(directory) / "stalls.so", Path(directory) / "files"
        files.mkdir()
        subprocess.run([compiler, "-shared", "-fPIC", "-o", shim, SHIM], check=True)
        environment = {
            "LD_PRELOAD": str(shim),
            "STALL_DIR": str(files),
            "STALL_FLAG": f"{directory}/stalling",
            "TRACKIO_DIR": f"{files}/trackio",
        }
        saved = Path(directory) / "results.json"
        command = [sys.executable, "-m", "benchmarks.stalls", saved, str(int(quick))]
        subprocess.run(
            [*command, *(peer.name for peer in peers)], env=os.environ | environment, check=True
        )
        return [
            Result(DISK, name, {column: Spread(*each) for column, each in figures.items()}, why)
            for name, figures, why in json.loads(saved.read_text())
        ]


def _below_the_shim(saved: str, quick: str, *peer_names: str) -> None:
    files = Path(os.environ["STALL_DIR"])
    results = []
    for name in ("vibe_rl", *peer_names):
        opens = _ours if name == "vibe_rl" else peer_named(name).opens
        try:
            with opens(files / name) as log:
                results.append(_compared(DISK, name, log, _disk_stalls, quick=quick == "1"))
        except Exception as error:  # noqa: BLE001 - another's library: whatever it is
            results.append(Result(DISK, name, why=f"{type(error).__name__}: {error}"))
    Path(saved).write_text(json.dumps([(each.case, each.figures, each.why) for each in results]))


@contextmanager
def _disk_stalls() -> Iterator[None]:
    flag = Path(os.environ["STALL_FLAG"])
    flag.touch()
    try:
        yield
    finally:
        flag.unlink()


@contextmanager
def _ours(directory: Path, backends: Sequence[Any] = ()) -> Iterator[Log]:
    logger = MetricsLogger(directory / "metrics.jsonl", backends)
    try:
        yield lambda step, record: logger.write({"step": step, **record})
    finally:
        logger.close(timeout=5)


# -- backends -----------------------------------------------------------------------------------


def _sleeping_backend(quick: bool) -> list[Result]:
    backend = SleepingBackend()

    @contextmanager
    def asleep() -> Iterator[None]:
        backend.asleep = True
        try:
            yield
        finally:
            backend.asleep = False

    with tempfile.TemporaryDirectory() as directory, _ours(Path(directory), [backend]) as log:
        return [_compared(SLEEPING, "vibe_rl", log, asleep, quick=quick)]


def _no_network(quick: bool, peers: Sequence[Peer]) -> list[Result]:
    """Beside a logger without W&B: offline, W&B writes its own log, and nothing waits for it."""
    results = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory, ExitStack() as stack:
        settings = {"mode": "offline", "dir": directory}
        cases = {
            "vibe_rl, W&B on a thread": WandbBackend(**settings, reinit="create_new"),
            "vibe_rl, W&B isolated": isolated(WandbBackend, **settings),
        }
        plain = stack.enter_context(_ours(Path(directory) / "plain"))
        logs = {
            name: stack.enter_context(_ours(Path(directory) / str(nth), [backend]))
            for nth, (name, backend) in enumerate(cases.items())
        }
        logs |= {
            peer.name: stack.enter_context(peer.opens(Path(directory) / f"plain {peer.name}"))
            for peer in peers
        }
        for name, log in logs.items():
            results.append(_beside(name, log, plain, quick=quick))
    return results


def _beside(name: str, log: Log, plain: Log, *, quick: bool) -> Result:
    """Compare two loggers as if one were the other, stalled."""
    current = plain

    @contextmanager
    def stalled() -> Iterator[None]:
        nonlocal current
        current = log
        try:
            yield
        finally:
            current = plain

    def to_current(step: int, record: Any) -> None:
        current(step, record)

    return _compared(NO_NETWORK, name, to_current, stalled, quick=quick)


if __name__ == "__main__":
    _below_the_shim(*sys.argv[1:])

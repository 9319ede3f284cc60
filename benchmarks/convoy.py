"""What a backlog that drains beside it costs the training loop.

A step of 150 µs whose values are read, and beside it something that takes a file of 200,000 records
to somewhere else: our feeds, on a thread and in a process of their own, and what one would write
oneself. Blocks with and without take turns. Where the backlog wouldn't drain within the
blocks, the time that it takes is reckoned from what drained in them.
"""

from __future__ import annotations

import functools
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.peers import Log, Peer, peer_named
from benchmarks.results import Result, Spread
from benchmarks.steps import NAMES, Step, jitted_step, read, time_steps
from benchmarks.timing import in_turn, tail
from vibe_rl.metrics import MetricsLogger, TensorBoardBackend, WandbBackend, isolated
from vibe_rl.metrics.feed.feed import Feed
from vibe_rl.metrics.lines import Position

RECORDS = 200_000
STEPS, BLOCK_S = 4000, 1.0
START = Position(0, 0)
TABLE = "a step of 150 µs beside a backlog"
NOTHING = "nothing"

# Drains the backlog while its context lasts; gives how many records it has taken since it began.
Drain = Callable[[], AbstractContextManager[Callable[[], int]]]


def run(quick: bool, peers: Sequence[Peer]) -> list[Result]:
    """Measure every way to drain it; of the peers, those that one would run on a thread."""
    step = jitted_step(150e-6)
    steps, rounds, records = (30, 1, 2000) if quick else (STEPS, 5, RECORDS)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory, ExitStack() as stack:
        backlog = Path(directory) / "metrics.jsonl"
        _write_backlog(backlog, records)
        taken: dict[str, list[list[int]]] = {}
        rates: dict[str, list[float]] = {}
        cases = {
            name: functools.partial(
                _block, step, drain, steps, taken.setdefault(name, []), rates.setdefault(name, [])
            )
            for name, drain in _drains(backlog, peers, stack).items()
        }
        medians = in_turn(cases, rounds)
    for warm in (*taken.values(), *rates.values()):
        del warm[:1]  # the round that isn't counted
    return [_result(name, medians, taken, rates[name]) for name in medians]


def _result(
    name: str,
    medians: Mapping[str, np.ndarray],
    taken: Mapping[str, list[list[int]]],
    rates: Sequence[float],
) -> Result:
    figures = {
        "p50, µs": Spread.of(medians[name]),
        "p50, x nothing": Spread.of(medians[name] / medians[NOTHING]),
    }
    for label, quantile in {"p99": 0.99, "p99.9": 0.999}.items():
        ratio = tail(taken[name], quantile) / tail(taken[NOTHING], quantile)
        figures[f"{label}, x nothing"] = Spread.of(ratio)
    if rates:
        figures["200,000 in, s"] = Spread.of(RECORDS / np.array(rates))
    return Result(TABLE, name, figures)


def _block(
    step: Step, drain: Drain, steps: int, taken: list[list[int]], rates: list[float]
) -> float:
    with drain() as drained:
        start = time.perf_counter()
        block = time_steps(step, read, steps, BLOCK_S)
        if records := drained():
            rates.append(records / (time.perf_counter() - start))
    taken.append(block)
    return float(np.median(block))


def _write_backlog(path: Path, records: int) -> None:
    with MetricsLogger(path) as logger:
        values = np.random.default_rng(0).random(records, np.float32)
        logger.write_batch({"step": np.arange(records), **dict.fromkeys(NAMES, values)})


def _drains(path: Path, peers: Sequence[Peer], stack: ExitStack) -> dict[str, Drain]:
    wandb = functools.partial(
        WandbBackend, mode="offline", dir=str(path.parent), reinit="create_new"
    )
    serial = count()

    def tensorboard_directory() -> Path:
        return path.with_name(f"tensorboard{next(serial)}")

    drains: dict[str, Drain] = {
        NOTHING: _nothing,
        "vibe_rl, TensorBoard on a thread": functools.partial(
            _on_a_thread, path, lambda: TensorBoardBackend(tensorboard_directory())
        ),
        "vibe_rl, W&B on a thread": functools.partial(_on_a_thread, path, wandb),
        "a naive thread that appends JSON": functools.partial(_naive, path, peer_named("jsonl")),
    }
    for name, make in {
        "vibe_rl, TensorBoard isolated": lambda: isolated(
            TensorBoardBackend, tensorboard_directory()
        ),
        "vibe_rl, W&B isolated": lambda: isolated(
            WandbBackend, mode="offline", dir=str(path.parent)
        ),
    }.items():
        drains[name] = stack.enter_context(_isolated(path, make))
    for peer in peers:
        if peer.name in ("tensorboardX", "wandb"):
            drains[f"{peer.name} on a naive thread"] = functools.partial(_naive, path, peer)
    return drains


# -- ways to drain it ---------------------------------------------------------------------------


@contextmanager
def _nothing() -> Iterator[Callable[[], int]]:
    yield lambda: 0


@contextmanager
def _on_a_thread(path: Path, make: Callable[[], Any]) -> Iterator[Callable[[], int]]:
    """A feed, as a logger starts it; anew each time."""
    feed = Feed(make(), path, START, name="the backlog's", from_start=True)
    try:
        yield lambda: feed.stats.logged
    finally:
        feed.abandon()
        feed.wait(feed.ask(close=True), None)


@contextmanager
def _isolated(path: Path, make: Callable[[], Any]) -> Iterator[Drain]:
    """One process that goes on where it was, and is stopped between the blocks."""
    before = set(psutil.Process().children())
    backend = make()
    own = set(psutil.Process().children()) - before
    is_followed = False

    def processes() -> list[psutil.Process]:
        return [*own, *(each for process in own for each in process.children(recursive=True))]

    @contextmanager
    def drain() -> Iterator[Callable[[], int]]:
        nonlocal is_followed
        for process in processes():
            process.resume()
        if not is_followed:
            backend.follow(path, START, name="the backlog's", nth=0)
            is_followed = True
        start = backend.stats.logged
        try:
            yield lambda: backend.stats.logged - start
        finally:
            for process in processes():
                process.suspend()

    try:
        yield drain
    finally:
        # It would deliver the rest, however long that takes: nobody needs it.
        for process in processes():
            process.kill()


@contextmanager
def _naive(path: Path, peer: Peer) -> Iterator[Callable[[], int]]:
    """A thread that reads line after line and logs each, as fast as it goes."""
    stop = threading.Event()
    taken = 0

    def drain(log: Log) -> None:
        nonlocal taken
        with path.open() as lines:
            for line in lines:
                if stop.is_set():
                    return
                record = json.loads(line)
                log(record.pop("step"), record)
                taken += 1

    with peer.opens(path.with_name(f"{peer.name}{time.monotonic_ns()}")) as log:
        thread = threading.Thread(target=drain, args=(log,), daemon=True)
        thread.start()
        try:
            yield lambda: taken
        finally:
            stop.set()
            thread.join()

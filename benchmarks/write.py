"""What one `write()` costs its caller, beside what it can't do without, and beside the peers.

The floors: `np.asarray` on the record's JAX values, and `orjson.dumps` of its Python floats. Every
JAX value is fresh (never read before: JAX keeps what it has read) and ready (computed already);
records are prepared by the hundred and then written one after the other, or, "after a step", each
as soon as its step has ended, when the processor's caches hold little of either's code.
"""

from __future__ import annotations

import functools
import itertools
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orjson

from benchmarks.peers import Log, Peer
from benchmarks.results import Result, Spread
from benchmarks.timing import PERCENTILES, in_turn, settle, timed
from vibe_rl.metrics import MetricsLogger, pack

NAMES = [f"metric_{index}" for index in range(50)]
FLOATS = {name: 1 / (index + 3) for index, name in enumerate(NAMES[:7])}
BLOCK = 100
# Most peers take so long that fewer calls must do.
PEER_BLOCK = 20


@jax.jit
def five(step: jax.Array) -> dict[str, jax.Array]:
    return {name: step / (index + 3) for index, name in enumerate(NAMES[:5])}


@jax.jit
def fifty(step: jax.Array) -> dict[str, jax.Array]:
    return {name: step / (index + 3) for index, name in enumerate(NAMES)}


@jax.jit
def fifty_packed(step: jax.Array) -> Any:
    return pack(fifty(step))


def floats(_: Any) -> dict[str, float]:
    return FLOATS


def read_all(record: Mapping[str, jax.Array]) -> None:
    for value in record.values():
        np.asarray(value)


# By table: how its records are made, its floor (a name and a function), and what we call on it.
TABLES: dict[str, tuple[Callable[[Any], Any], str, Callable[[Any], object]]] = {
    "5 fresh JAX scalars": (five, "np.asarray", read_all),
    "50 fresh JAX scalars": (fifty, "np.asarray", read_all),
    "7 floats": (floats, "orjson.dumps", orjson.dumps),
}
WITH_PEERS = ("5 fresh JAX scalars", "7 floats")


def run(quick: bool, peers: Sequence[Peer]) -> list[Result]:
    """Measure the calls in one go, in turn; then the processor's time, case by case."""
    rounds = 2 if quick else 200
    results = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory, ExitStack() as stack:
        logger = stack.enter_context(MetricsLogger(Path(directory) / "metrics.jsonl"))
        logs, absent = _opened(peers, Path(directory), stack)
        for table, (make, floor, read) in TABLES.items():
            cases = {floor: read, "vibe_rl": logger.write}
            measured = in_turn(
                {name: functools.partial(_ready, make, call) for name, call in cases.items()},
                rounds,
            )
            if make is five:
                measured |= _after_a_step(floor, logger, rounds)
            if make is fifty:
                packed = functools.partial(_ready, fifty_packed, logger.write)
                measured |= in_turn({"vibe_rl, packed": packed}, rounds)
            beside_ours = {}
            if table in WITH_PEERS:
                cases |= logs
                beside_ours = _beside_ours(make, {"vibe_rl": logger.write, **logs}, quick=quick)
                measured |= {name: beside_ours[name] for name in logs}
            cpu = {name: _cpu_us(make, call, quick=quick) for name, call in cases.items()}
            results += _results(table, floor, measured, beside_ours, cpu)
            results += [Result(table, name, why=why) for name, why in absent.items()]
    return results


def _results(
    table: str,
    floor: str,
    measured: Mapping[str, np.ndarray],
    beside_ours: Mapping[str, np.ndarray],
    cpu: Mapping[str, Spread],
) -> list[Result]:
    results = []
    for name, each in measured.items():
        own_floor = measured[floor + ", after a step" * name.endswith("after a step")]
        figures = {"p50, µs": Spread.of(np.median(each, axis=1))}
        for percentile in PERCENTILES:
            taken = np.percentile(each, percentile)
            figures.setdefault(f"p{percentile}, µs", Spread.of(taken))
            figures[f"p{percentile}, x floor"] = Spread.of(
                taken / np.percentile(own_floor, percentile)
            )
        figures["max, µs"] = Spread.of(each.max())
        if name in beside_ours:
            ratios = np.median(beside_ours[name], axis=1) / np.median(
                beside_ours["vibe_rl"], axis=1
            )
            figures["p50, x vibe_rl"] = Spread.of(ratios)
        if name in cpu:
            figures["process CPU, µs"] = cpu[name]
        results.append(Result(table, name, figures))
    return results


_steps = itertools.count(1)


def _ready(
    make: Callable[[Any], Any], call: Callable[[Any], object], block: int = BLOCK
) -> list[int]:
    records = jax.block_until_ready([make(np.float32(next(_steps))) for _ in range(block)])
    return [timed(call, record) for record in records]


def _after_a_step(floor: str, logger: MetricsLogger, rounds: int) -> dict[str, np.ndarray]:
    def block(call: Callable[[Any], object]) -> list[int]:
        return [
            timed(call, jax.block_until_ready(five(np.float32(next(_steps))))) for _ in range(BLOCK)
        ]

    cases = {floor: read_all, "vibe_rl": logger.write}
    return in_turn(
        {f"{name}, after a step": functools.partial(block, call) for name, call in cases.items()},
        rounds,
    )


def _beside_ours(
    make: Callable[[Any], Any], logs: Mapping[str, Callable[[Any], object]], *, quick: bool
) -> dict[str, np.ndarray]:
    def block(call: Callable[[Any], object]) -> list[int]:
        taken = _ready(make, call, PEER_BLOCK)
        settle()
        return taken

    cases = {name: functools.partial(block, call) for name, call in logs.items()}
    return in_turn(cases, 1 if quick else 12)


def _opened(
    peers: Sequence[Peer], directory: Path, stack: ExitStack
) -> tuple[dict[str, Callable[[Any], object]], dict[str, str]]:
    """By name, what logs a record with each peer, and why some peers can't."""
    logs, absent = {}, {}

    def numbered(log: Log) -> Callable[[Any], object]:
        step = itertools.count()
        return lambda record: log(next(step), record)

    for peer in peers:
        try:
            logs[peer.name] = numbered(stack.enter_context(peer.opens(directory / peer.name)))
        except Exception as error:  # noqa: BLE001 - another's library: whatever it is
            absent[peer.name] = f"{type(error).__name__}: {error}"
    return logs, absent


def _cpu_us(make: Callable[[Any], Any], call: Callable[[Any], object], *, quick: bool) -> Spread:
    """What this process computes for a record in all, whichever thread does it."""
    count = 10 if quick else 100
    used = []
    for _ in range(2 if quick else 3):
        records = jax.block_until_ready([make(np.float32(next(_steps))) for _ in range(count)])
        _until_idle()
        start = time.process_time_ns()
        for record in records:
            call(record)
        time.sleep(0.15)  # the writer's next time
        _until_idle()
        used.append((time.process_time_ns() - start) / count / 1e3)
    return Spread.of(used)


def _until_idle(most_s: float = 3.0) -> None:
    # Not `settle`, for that computes itself.
    until = time.monotonic() + most_s
    before = 0.0
    while time.process_time() - before > 0.5e-3 and time.monotonic() < until:
        before = time.process_time()
        time.sleep(0.02)

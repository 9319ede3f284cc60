"""What logging from inside a compiled function adds to each iteration, six scalars a record.

A scan of which nothing is logged, and the same scan logged in several ways, one iteration a record:
to the end of the computation, and until all records are in the file. Those of JAX's own callbacks
that get the dictionary hand it to the same `logger.write`. Two that do nothing are there for what a
callback costs at least. No round fills the logger's queue: beyond that, the writer's pace is all
that can be measured.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import io_callback

from benchmarks.peers import Peer
from benchmarks.results import Result, Spread
from benchmarks.timing import in_turn
from vibe_rl.metrics import MetricsLogger

Scan = Callable[..., Any]


def iteration(state: jax.Array, _: None) -> tuple[jax.Array, dict[str, jax.Array]]:
    state = jnp.tanh(state * 1.01 + 0.1)
    return state, {name: state * (i + 1) for i, name in enumerate("abcdef")}


def logged_by(log: Callable[[jax.Array, dict[str, jax.Array]], None]) -> Scan:
    """A scan that hands its step and its metrics to `log` in each iteration."""

    def scan(f: Callable[..., Any], init: jax.Array, xs: None, length: int) -> Any:
        def body(state: jax.Array, step: jax.Array) -> Any:
            state, metrics = f(state, xs)
            log(step, metrics)
            return state, metrics

        return jax.lax.scan(body, init, jnp.arange(length))

    return scan


def ways(logger: MetricsLogger) -> dict[str, tuple[Scan, int]]:
    """By name, how to log, and how many iterations of it make a round."""

    def emit(step: jax.Array, metrics: dict[str, jax.Array], every: int | None = None) -> None:
        logger.emit({"step": step, **metrics}, every=every)

    def debug_callback(step: jax.Array, metrics: dict[str, jax.Array]) -> None:
        jax.debug.callback(logger.write, {"step": step, **metrics})

    def one_array(step: jax.Array, metrics: dict[str, jax.Array]) -> None:
        del step
        jax.debug.callback(_do_nothing, jnp.stack([*metrics.values()]))

    def dictionary(step: jax.Array, metrics: dict[str, jax.Array]) -> None:
        jax.debug.callback(_do_nothing, {"step": step, **metrics})

    def plain_io_callback(step: jax.Array, metrics: dict[str, jax.Array]) -> None:
        io_callback(logger.write, None, {"step": step, **metrics})

    return {
        "logger.scan(every=200)": (partial(logger.scan, every=200), 20_000),
        "logger.scan(every=200), not collecting": (
            partial(logger.scan, every=200, collect=False),
            20_000,
        ),
        "logger.scan(every=10)": (partial(logger.scan, every=10), 10_000),
        "logger.emit": (logged_by(emit), 2_000),
        "logger.emit(every=100)": (logged_by(partial(emit, every=100)), 20_000),
        "jax.debug.callback(do nothing), one array": (logged_by(one_array), 2_000),
        "jax.debug.callback(do nothing), dictionary": (logged_by(dictionary), 1_000),
        "jax.debug.callback(logger.write)": (logged_by(debug_callback), 1_000),
        "io_callback(logger.write)": (logged_by(plain_io_callback), 1_000),
    }


def _do_nothing(_: Any) -> None:
    pass


def measure(
    logger: MetricsLogger, lanes: int, rounds: int, share: float, least: int
) -> dict[str, Any]:
    """By name, µs an iteration: of the plain scan, added until its end, added until in the file."""

    def prepared(scan: Scan, length: int) -> Callable[[], tuple[int, int]]:
        def run(state: jax.Array) -> Any:
            return scan(iteration, state, None, length)

        start_state = jnp.ones(lanes) if lanes > 1 else jnp.float32(1)
        compiled = jax.jit(jax.vmap(run) if lanes > 1 else run).lower(start_state).compile()

        def timed() -> tuple[int, int]:
            start = time.perf_counter_ns()
            jax.block_until_ready(compiled(start_state))
            end = time.perf_counter_ns()
            logger.flush()
            return end - start, time.perf_counter_ns() - start

        return timed

    lengths = {name: max(int(length * share), least) for name, (_, length) in ways(logger).items()}
    cases = {
        f"plain {length}": prepared(jax.lax.scan, length)
        for length in dict.fromkeys(lengths.values())
    }
    cases |= {name: prepared(scan, lengths[name]) for name, (scan, _) in ways(logger).items()}
    taken = in_turn(cases, rounds)
    return {
        name: (
            taken[f"plain {length}"][:, 0] / length,
            *((taken[name] - taken[f"plain {length}"][:, :1]) / length / lanes).T,
        )
        for name, length in lengths.items()
    }


def run(quick: bool, peers: Sequence[Peer]) -> list[Result]:
    """Measure one lane, and eight under `vmap`. No peer has anything of the kind."""
    del peers
    results = []
    for lanes in (1, 8):
        rounds, share, least = (1, 0.01, 20) if quick else (9, 1 / lanes, 200)
        with (
            tempfile.TemporaryDirectory() as directory,
            MetricsLogger(Path(directory) / "metrics.jsonl") as logger,
        ):
            measured = measure(logger, lanes, rounds, share, least)
        table = f"{lanes} lane{'s' * (lanes > 1)}, µs"
        columns = ("plain, an iteration", "added, a record", "added until in the file")
        results += [
            Result(table, name, dict(zip(columns, map(Spread.of, each), strict=True)))
            for name, each in measured.items()
        ]
    return results

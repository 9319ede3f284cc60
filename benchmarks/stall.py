"""How long the loop waits for the device when it logs each step, with `defer` 0, 1 and 2.

Each step dispatches a computation to the device, logs five values that it gives, and does 1 ms of
work on the host (an environment, say). Ideal: nothing waits for anything but the
slower of host and device. On a CPU the "device" is one other core, which must be free.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

# Only CPUs heed this: one thread computes, as if it were a device beside the host's.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import jax  # once that is set
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import Peer
from benchmarks.results import Result, Spread
from benchmarks.timing import in_turn
from vibe_rl.metrics import MetricsLogger

HOST_NS = 1_000_000
DEVICE_NS = (500_000, 900_000, 2_000_000)  # less than that, about as long, and longer
BLOCK = 50


@partial(jax.jit, static_argnames="rounds")
def train_step(weights: jax.Array, rounds: int) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Enough matrix products to keep the device busy, and five metrics of the result."""
    weights = jax.lax.fori_loop(0, rounds, lambda _, w: jnp.tanh(w @ w), weights)
    return weights, {f"metric_{i}": weights[i, i] for i in range(5)}


def work_on_host() -> None:
    until = time.perf_counter_ns() + HOST_NS
    while time.perf_counter_ns() < until:
        pass


def rounds_for(weights: jax.Array, target_ns: float) -> int:
    """How many rounds make a step as long as that."""
    rounds = 1
    while (taken := step_ns(weights, rounds)) < target_ns / 2:
        rounds *= 2
    return max(round(rounds * target_ns / taken), 1)


def step_ns(weights: jax.Array, rounds: int) -> float:
    """The least time that a step takes, nothing else going on."""
    times = []
    for _ in range(10):
        start = time.perf_counter_ns()
        jax.block_until_ready(train_step(weights, rounds))
        times.append(time.perf_counter_ns() - start)
    return min(times)


def block(weights: jax.Array, rounds: int, logger: MetricsLogger | None) -> int:
    """Nanoseconds a step; without a logger, nothing is read."""
    jax.block_until_ready(weights)
    start = time.perf_counter_ns()
    for step in range(BLOCK):
        weights, metrics = train_step(weights, rounds)
        if logger is not None:
            logger.write({"step": step, **metrics})
        work_on_host()
    jax.block_until_ready(weights)
    return (time.perf_counter_ns() - start) // BLOCK


def measure(directory: Path, rounds: int, turns: int) -> Mapping[str, np.ndarray]:
    """Time a loop with each setting, in turn; µs a step."""
    weights = jnp.eye(128) * 0.5
    loggers = [MetricsLogger(directory / f"{defer}.jsonl", defer=defer) for defer in range(3)]
    cases: dict[str, Any] = {"no logger": partial(block, weights, rounds, None)}
    for defer, logger in enumerate(loggers):
        cases[f"defer={defer}"] = partial(block, weights, rounds, logger)
    measured = in_turn(cases, turns)
    for logger in loggers:
        logger.close()
    return measured


def run(quick: bool, peers: Sequence[Peer]) -> list[Result]:
    """Measure a device that is faster than the host, as fast, and slower. No peer defers."""
    del peers
    results = []
    for device_ns in DEVICE_NS[:1] if quick else DEVICE_NS:
        rounds = rounds_for(jnp.eye(128) * 0.5, device_ns)
        step_us = step_ns(jnp.eye(128) * 0.5, rounds) / 1e3
        ideal = max(HOST_NS / 1e3, step_us)
        with tempfile.TemporaryDirectory() as directory:
            measured = measure(Path(directory), rounds, 1 if quick else 20)
        table = f"a device step of {device_ns / 1e6:g} ms beside 1 ms on the host"
        results += [
            Result(
                table,
                name,
                {"µs a step": Spread.of(each), "x ideal": Spread.of(each / ideal)},
            )
            for name, each in measured.items()
        ]
    return results

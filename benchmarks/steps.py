"""A jitted training step of a wanted length, and a loop of it whose steps are timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

NAMES = ("a", "b", "c", "d", "e")

Metrics = dict[str, jax.Array]
Step = Callable[[jax.Array], tuple[jax.Array, Metrics]]


def jitted_step(seconds: float) -> Step:
    """A step of that length, with five fresh scalars: as many small products as it takes."""
    few, many = _seconds(_step_of(8)), _seconds(_step_of(72))
    return _step_of(max(round(8 + 64 * (seconds - few) / (many - few)), 1))


def read(_: int, metrics: Metrics) -> None:
    """What any logger must do at least: bring the values to the host."""
    for value in metrics.values():
        np.asarray(value)


def time_steps(
    step: Step, log: Callable[[int, Metrics], object], steps: int, most_s: float
) -> list[int]:
    """Run a loop that logs each step, until it has so many, or that time is over.

    Returns:
        The nanoseconds of each step, logging included.
    """
    state = jnp.ones(128)
    ends = [time.perf_counter_ns()]
    until = ends[0] + most_s * 1e9
    for i in range(steps):
        state, metrics = step(state)
        log(i, metrics)
        ends.append(time.perf_counter_ns())
        if ends[-1] > until:
            break
    jax.block_until_ready(state)
    ends[-1] = time.perf_counter_ns()
    return np.diff(ends).tolist()


def _step_of(products: int) -> Step:
    weights = jax.random.orthogonal(jax.random.key(0), 128)

    @jax.jit
    def step(state: jax.Array) -> Any:
        state = jax.lax.fori_loop(0, products, lambda _, x: jnp.tanh(weights @ x) + 0.1, state)
        return state, {name: state[i] for i, name in enumerate(NAMES)}

    return step


def _seconds(step: Step) -> float:
    """How long a step takes whose values are read."""
    state, trials = jnp.ones(128), []
    for _ in range(200):
        start = time.perf_counter()
        state, metrics = step(state)
        read(0, metrics)
        trials.append(time.perf_counter() - start)
    return float(np.median(trials))

"""What one `write()` costs its caller, beside what it can't do without.

    python benchmarks/write.py [--quick]

The floors: `np.asarray` on the record's JAX values, and `orjson.dumps` of its Python floats. Every
JAX value is fresh (never read before: JAX keeps what it has read) and ready (computed already);
records are prepared by the hundred and then written one after the other, or, "after a step", each
as soon as its step has ended, when the processor's caches hold little of either's code.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orjson
from timing import in_turn, machine, print_percentiles, print_table, timed

from vibe_rl.metrics import MetricsLogger, pack

NAMES = [f"metric_{index}" for index in range(50)]
FLOATS = {name: 1 / (index + 3) for index, name in enumerate(NAMES[:7])}
BLOCK = 100
RATIOS = [
    ("write 5", "np.asarray x 5"),
    ("write 50", "np.asarray x 50"),
    ("write 50 packed", "write 50"),
    ("write 5, after a step", "np.asarray x 5, after a step"),
    ("write 7 floats", "orjson.dumps 7 floats"),
]


@jax.jit
def five(step: jax.Array) -> dict[str, jax.Array]:
    return {name: step / (index + 3) for index, name in enumerate(NAMES[:5])}


@jax.jit
def fifty(step: jax.Array) -> dict[str, jax.Array]:
    return {name: step / (index + 3) for index, name in enumerate(NAMES)}


@jax.jit
def fifty_packed(step: jax.Array) -> Any:
    return pack(fifty(step))


def read_all(record: Mapping[str, jax.Array]) -> None:
    for value in record.values():
        np.asarray(value)


def measure(path: Path, rounds: int) -> dict[str, np.ndarray]:
    """Time all cases; µs a call, `BLOCK` calls a round."""
    step = np.float32(0)

    def fresh(make: Callable[[Any], Any]) -> Any:
        nonlocal step
        step += np.float32(1)
        return make(step)

    def prepared(make: Callable[[Any], Any], function: Callable[[Any], object]) -> list[int]:
        records = jax.block_until_ready([fresh(make) for _ in range(BLOCK)])
        return [timed(function, record) for record in records]

    def after_a_step(make: Callable[[Any], Any], function: Callable[[Any], object]) -> list[int]:
        return [timed(function, jax.block_until_ready(fresh(make))) for _ in range(BLOCK)]

    def on_floats(function: Callable[[Any], object]) -> list[int]:
        return [timed(function, FLOATS) for _ in range(BLOCK)]

    with MetricsLogger(path) as logger:
        cases = {
            "np.asarray x 5": partial(prepared, five, read_all),
            "write 5": partial(prepared, five, logger.write),
            "np.asarray x 50": partial(prepared, fifty, read_all),
            "write 50": partial(prepared, fifty, logger.write),
            "write 50 packed": partial(prepared, fifty_packed, logger.write),
            "np.asarray x 5, after a step": partial(after_a_step, five, read_all),
            "write 5, after a step": partial(after_a_step, five, logger.write),
            "orjson.dumps 7 floats": partial(on_floats, orjson.dumps),
            "write 7 floats": partial(on_floats, logger.write),
        }
        return in_turn(cases, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds: does it run at all?")
    rounds = 2 if parser.parse_args().quick else 200
    print(f"{machine()}; {jax.devices()[0].device_kind}")
    with tempfile.TemporaryDirectory() as directory:
        measured = measure(Path(directory) / "metrics.jsonl", rounds)
    print_percentiles(measured)
    print()
    rows = []
    for case, floor in RATIOS:
        ratios = [
            np.percentile(measured[case], percentile) / np.percentile(measured[floor], percentile)
            for percentile in (50, 99, 99.9)
        ]
        rows.append([f"{case} / {floor}", *(f"{ratio:.2f}" for ratio in ratios)])
    print_table(["ratio", "p50", "p99", "p99.9"], rows)


if __name__ == "__main__":
    main()

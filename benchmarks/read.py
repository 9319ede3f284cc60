"""Reading a metrics file: our readers beside json, pandas, polars and DuckDB on the same file."""

from __future__ import annotations

import json
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import Peer
from benchmarks.results import Result, Spread
from benchmarks.timing import in_turn, timed
from vibe_rl.metrics import MetricsLogger, iter_metrics, read_columns, read_metrics
from vibe_rl.metrics.reading import polars_engine

RECORDS = (10_000, 1_000_000, 10_000_000)

# Beyond, records and the slower peers take too long, or more memory than there is.
MOST_FOR_ALL = 1_000_000
TWO = ["step", "loss"]


def run(quick: bool, peers: Sequence[Peer]) -> list[Result]:
    """Measure each reader on files of several sizes; peers that only write are left out."""
    del peers
    results = []
    for records in (1_000,) if quick else RECORDS:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "metrics.jsonl"
            _write(path, records)
            rounds = 1 if quick else 5 if records > 100_000 else 15
            if records <= MOST_FOR_ALL:
                results += _whole_records(path, records, rounds)
            results += _two_columns(path, records, rounds)
    return results


def _whole_records(path: Path, records: int, rounds: int) -> list[Result]:
    cases = {
        "json.loads a line": partial(_json, path),
        "vibe_rl, read_metrics": partial(read_metrics, path),
        "vibe_rl, iter_metrics": lambda: deque(iter_metrics(path), maxlen=0),
    }
    return _compared(f"{records:,} records", "json.loads a line", cases, rounds)


def _two_columns(path: Path, records: int, rounds: int) -> list[Result]:
    import duckdb
    import pandas as pd
    import polars as pl

    schema = {"step": pl.Int64, "loss": pl.Float64}
    query = f"select step, loss from read_json('{path}', sample_size=-1)"  # noqa: S608 - our path
    cases = {
        "polars": lambda: pl.read_ndjson(path, schema=schema),
        "vibe_rl, read_columns": lambda: read_columns(path, columns=TWO),
        "DuckDB": lambda: duckdb.sql(query).fetchnumpy(),
    }
    if records <= MOST_FOR_ALL:
        cases |= {
            "vibe_rl, read_columns without polars": partial(_without_polars, path),
            "polars, types unknown": lambda: pl.read_ndjson(path, infer_schema_length=None)[TWO],
            "pandas": lambda: pd.read_json(path, lines=True)[TWO],
        }
    return _compared(f"two columns of {records:,} records", "polars", cases, rounds)


def _compared(
    table: str, floor: str, cases: dict[str, Callable[[], Any]], rounds: int
) -> list[Result]:
    taken = in_turn({name: partial(timed, read) for name, read in cases.items()}, rounds)
    return [
        Result(
            table,
            name,
            {
                "ms": Spread.of(taken[name] / 1e3),
                f"x {floor}": Spread.of(taken[name] / taken[floor]),
            },
        )
        for name in cases
    ]


def _write(path: Path, records: int) -> None:
    draw = np.random.default_rng(0)
    with MetricsLogger(path) as logger:
        for start in range(0, records, 100_000):
            steps = np.arange(start, min(start + 100_000, records))
            values = draw.random((5, len(steps)), np.float32)
            names = ("loss", "return", "entropy", "kl", "lr")
            logger.write_batch({"step": steps, **dict(zip(names, values, strict=True))})
            logger.flush()


def _json(path: Path) -> list[Any]:
    with path.open() as file:
        return [json.loads(line) for line in file]


def _without_polars(path: Path) -> dict[str, np.ndarray]:
    is_installed, polars_engine.is_installed = polars_engine.is_installed, lambda: False
    try:
        return read_columns(path, columns=TWO)
    finally:
        polars_engine.is_installed = is_installed

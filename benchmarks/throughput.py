"""How many records a second reach the file on the disk, and how many bytes and how much memory.

A round of a case writes its records and waits until all are in the file. The floor: `os.write` of
the same bytes, in pieces of the size in which the logger appends. A peer logs for half
a second at most, and closing it is part of its time.
"""

from __future__ import annotations

import functools
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil

from benchmarks.peers import Peer
from benchmarks.results import Result, Spread
from benchmarks.timing import in_turn, settle
from vibe_rl.metrics import MetricsLogger

NAMES = [f"metric_{index}" for index in range(7)]
FLOATS = {name: 1 / (index + 3) for index, name in enumerate(NAMES)}
TABLE = "records of 7 numbers"
MEMORY = "growth of the process, from the 3rd to the 10th round"
PIECE = 1 << 20
PEER_S, PEER_RECORDS = 0.5, 2000


def run(quick: bool, peers: Sequence[Peer]) -> list[Result]:
    """Measure ours, by the number of threads, and the peers."""
    records = 2000 if quick else 200_000
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        results = _memory(Path(directory), records // 2)
        results += _ours(Path(directory), records, 1 if quick else 3)
        for peer in peers:
            try:
                results.append(_peer(peer, Path(directory), quick=quick))
            except Exception as error:  # noqa: BLE001 - another's library: whatever it is
                results.append(Result(TABLE, peer.name, why=f"{type(error).__name__}: {error}"))
    return results


def _ours(directory: Path, records: int, rounds: int) -> list[Result]:
    loggers = {}
    cases: dict[str, Callable[[], int]] = {}
    counts = {}
    for threads in (1, 2, 4, 8, 16):
        name = "vibe_rl, write" + f", {threads} threads" * (threads > 1)
        loggers[name] = MetricsLogger(directory / f"{threads}.jsonl")
        counts[name] = records // threads * threads
        cases[name] = functools.partial(_write, loggers[name], records // threads, threads)
    name = "vibe_rl, write_batch"
    loggers[name] = MetricsLogger(directory / "batch.jsonl")
    counts[name] = records * 10
    cases[name] = functools.partial(_write_batch, loggers[name], counts[name])
    floor = "os.write of the bytes of write"
    counts[floor] = records
    cases[floor] = functools.partial(_os_write, directory / "floor", _bytes_of(directory, records))
    taken = in_turn(cases, rounds)
    results = []
    for name, each in taken.items():
        rates = counts[name] / (each / 1e6)
        figures = {"records/s": Spread.of(rates)}
        if name in loggers:
            loggers[name].close()
            size = loggers[name].path.stat().st_size
            figures["bytes a record"] = Spread.of(size / counts[name] / (rounds + 1))
        results.append(Result(TABLE, name, figures))
    return results


def _memory(directory: Path, records: int) -> list[Result]:
    """How the process grows in ten rounds of one logger, once it has had three to grow in."""
    results = []
    for name, write in {
        "vibe_rl, write": lambda logger: _write(logger, records, 1),
        "vibe_rl, write_batch": lambda logger: _write_batch(logger, records * 2),
    }.items():
        with MetricsLogger(directory / f"{name}.jsonl") as logger:
            sizes = []
            for _ in range(10):
                write(logger)
                sizes.append(psutil.Process().memory_info().rss / 1e6)
        results.append(Result(MEMORY, name, {"MB": Spread.of(sizes[-1] - max(sizes[:3]))}))
    return results


def _write(logger: MetricsLogger, records: int, threads: int) -> int:
    def write() -> None:
        for step in range(records):
            logger.write({"step": step, **FLOATS})

    start = time.perf_counter_ns()
    others = [threading.Thread(target=write) for _ in range(threads - 1)]
    for other in others:
        other.start()
    write()
    for other in others:
        other.join()
    logger.flush()
    return time.perf_counter_ns() - start


def _write_batch(logger: MetricsLogger, records: int) -> int:
    column = np.random.default_rng(0).random(records // 10, np.float32)
    start = time.perf_counter_ns()
    for _ in range(10):
        logger.write_batch(dict.fromkeys(NAMES, column))
    logger.flush()
    return time.perf_counter_ns() - start


def _bytes_of(directory: Path, records: int) -> bytes:
    with MetricsLogger(directory / "sample.jsonl") as logger:
        _write(logger, records, 1)
    return logger.path.read_bytes()


def _os_write(path: Path, data: bytes) -> int:
    start = time.perf_counter_ns()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for at in range(0, len(data), PIECE):
        os.write(fd, data[at : at + PIECE])
    os.close(fd)
    return time.perf_counter_ns() - start


def _peer(peer: Peer, directory: Path, *, quick: bool) -> Result:
    rates, sizes = [], []
    for nth in range(1 if quick else 3):
        files = directory / f"{peer.name}{nth}"
        with peer.opens(files) as log:
            settle()  # what it does to begin with
            start = time.perf_counter()
            until = start + (0.05 if quick else PEER_S)
            records = 0
            while records < PEER_RECORDS and time.perf_counter() < until:
                log(records, FLOATS)
                records += 1
        rates.append(records / (time.perf_counter() - start))
        sizes.append(sum(each.stat().st_size for each in files.rglob("*") if each.is_file()))
    figures = {"records/s": Spread.of(rates)}
    if sizes[-1]:
        figures["bytes a record"] = Spread.of(sizes[-1] / records)
    return Result(TABLE, peer.name, figures)

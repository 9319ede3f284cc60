"""What logging each step costs a jitted training loop.

The reference reads a step's five fresh scalars with `np.asarray`, as any logger must, and logs
nothing. Every other loop's block of steps is compared with the reference's of the same round. A
block is several times as long as a record may wait for its append, and is timed once appends and
deliveries are under way, so that they happen within it.

Two loops are there for information. One reads nothing: between it and the reference lies what
reading costs, of which `defer` saves a part. The other is the reference beside a process of the
lowest priority that always computes: what the system takes for any such process, whatever it does.
"""

from __future__ import annotations

import functools
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import Log, Peer
from benchmarks.results import Result, Spread
from benchmarks.steps import Step, jitted_step, read, time_steps
from benchmarks.timing import in_turn, settle, tail
from vibe_rl.metrics import MetricsLogger, TensorBoardBackend, WandbBackend, isolated
from vibe_rl.metrics.isolation.priority import yield_to_others

STEPS_S = {"50 µs": 50e-6, "150 µs": 150e-6, "1 ms": 1e-3, "10 ms": 10e-3}
PEERS_AT = ("150 µs", "1 ms")
LEAD_S, BLOCK_S = 0.15, 0.5
READING = "reads, logs nothing"
NOTHING = "reads nothing, logs nothing"
BESIDE = "reads, beside a busy process of the lowest priority"

# Opens a logger in a directory of its own; gives what logs, and what waits for the rest.
Opens = Callable[[Path], AbstractContextManager[tuple[Log, Callable[[], object]]]]


def run(quick: bool, peers: Sequence[Peer]) -> list[Result]:
    """Measure each length of step."""
    results = []
    for length in PEERS_AT[:1] if quick else STEPS_S:
        beside = peers if length in PEERS_AT else ()
        results += at_length(length, OURS, beside, quick=quick)
    return results


def at_length(
    length: str, ours: Mapping[str, Opens], peers: Sequence[Peer], *, quick: bool, rounds: int = 8
) -> list[Result]:
    """Measure one of `STEPS_S`; ours together, each peer alone with the reference.

    What one peer leaves to do in the background would otherwise meet the others.
    """
    table, step = f"a step of {length}", jitted_step(STEPS_S[length])
    steps = 20 if quick else max(round(BLOCK_S / STEPS_S[length]), 20)
    results = _measure(table, step, steps, ours, 1 if quick else rounds)
    for peer in peers:
        cases = {READING: _reading, peer.name: _of(peer)}
        try:
            results += _measure(table, step, min(steps, 1000), cases, 1 if quick else 4)[1:]
        except Exception as error:  # noqa: BLE001 - another's library: whatever it is
            results.append(Result(table, peer.name, why=f"{type(error).__name__}: {error}"))
    return results


def _measure(
    table: str, step: Step, steps: int, cases: Mapping[str, Opens], rounds: int
) -> list[Result]:
    blocks_of: dict[str, list[list[int]]] = {name: [] for name in cases}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory, ExitStack() as stack:
        blocks = {}
        for nth, (name, opens) in enumerate(cases.items()):
            log, wait = stack.enter_context(opens(Path(directory) / str(nth)))
            blocks[name] = functools.partial(_block, step, log, wait, steps, blocks_of[name])
        means = in_turn(blocks, rounds)
    tails = {name: tail(taken[1:], 0.999) / 1e3 for name, taken in blocks_of.items()}
    results = []
    for name in means:
        figures = {
            "µs a step": Spread.of(means[name]),
            "x reading": Spread.of(means[name] / means[READING]),
            "p99.9, µs": Spread.of(tails[name]),
            "p99.9, x reading": Spread.of(tails[name] / tails[READING]),
        }
        if NOTHING in means:
            figures["x reading nothing"] = Spread.of(means[name] / means[NOTHING])
        results.append(Result(table, name, figures))
    return results


def _block(
    step: Step, log: Log, wait: Callable[[], object], steps: int, blocks: list[list[int]]
) -> float:
    time_steps(step, log, steps, LEAD_S)
    taken = time_steps(step, log, steps, 2 * BLOCK_S)
    wait()
    blocks.append(taken)
    return float(np.mean(taken))


# -- the loops ---------------------------------------------------------------------------------


@contextmanager
def _nothing(_: Path) -> Iterator[tuple[Log, Callable[[], object]]]:
    yield lambda *_: None, lambda: None


@contextmanager
def _reading(_: Path) -> Iterator[tuple[Log, Callable[[], object]]]:
    yield read, lambda: None


@contextmanager
def _reading_beside_a_process(_: Path) -> Iterator[tuple[Log, Callable[[], object]]]:
    command = [sys.executable, "-c", "from benchmarks.loop import compute; compute()"]
    root = Path(__file__).parents[1]
    with subprocess.Popen(
        command, bufsize=0, cwd=root, stdin=subprocess.PIPE, start_new_session=True
    ) as process:
        computes = False

        def tell(*, compute: bool) -> None:
            nonlocal computes
            if compute != computes:
                process.stdin.write(_COMPUTE if compute else _PAUSE)
                computes = compute

        def log(step: int, record: Any) -> None:
            tell(compute=True)
            read(step, record)

        yield log, lambda: tell(compute=False)


_COMPUTE, _PAUSE = b"c", b"p"


def compute() -> None:
    """Compute or pause, as standard input says, when nobody else wants the processor."""
    yield_to_others(os.getsid(os.getppid()))
    while command := os.read(0, 1):  # ends with the parent, however that does
        while command == _COMPUTE and not select.select([0], [], [], 0)[0]:
            for _ in range(10_000):
                pass


def _ours(*make_backends: Callable[[Path], Any], defer: int = 0) -> Opens:
    @contextmanager
    def opens(directory: Path) -> Iterator[tuple[Log, Callable[[], object]]]:
        directory.mkdir()
        backends = [make(directory) for make in make_backends]
        with MetricsLogger(directory / "metrics.jsonl", backends, defer=defer) as logger:

            def log(step: int, record: Any) -> None:
                logger.write({"step": step, **record})

            # A process that runs only when a core is free may get none for long.
            yield log, lambda: logger.flush(timeout=5)

    return opens


def _of(peer: Peer) -> Opens:
    @contextmanager
    def opens(directory: Path) -> Iterator[tuple[Log, Callable[[], object]]]:
        with peer.opens(directory) as log:
            yield log, settle

    return opens


def _tensorboard(directory: Path) -> TensorBoardBackend:
    return TensorBoardBackend(directory)


def _wandb(directory: Path) -> WandbBackend:
    return WandbBackend(mode="offline", dir=str(directory), reinit="create_new")


def _isolated_tensorboard(directory: Path) -> Any:
    return isolated(TensorBoardBackend, directory)


def _isolated_wandb(directory: Path) -> Any:
    return isolated(WandbBackend, mode="offline", dir=str(directory))


OURS: dict[str, Opens] = {
    NOTHING: _nothing,
    READING: _reading,
    BESIDE: _reading_beside_a_process,
    "vibe_rl, file only": _ours(),
    "vibe_rl, defer=1": _ours(defer=1),
    "vibe_rl, TensorBoard on a thread": _ours(_tensorboard),
    "vibe_rl, TensorBoard isolated": _ours(_isolated_tensorboard),
    "vibe_rl, W&B on a thread": _ours(_wandb),
    "vibe_rl, W&B isolated": _ours(_isolated_wandb),
    "vibe_rl, TensorBoard and W&B isolated": _ours(_isolated_tensorboard, _isolated_wandb),
}

"""What backends cost the training loop.

A jitted step of about 150 µs gives five fresh JAX scalars. The reference reads them with
`np.asarray`, as any logger must, and logs nothing. Every other loop logs them, a record a step, and
its slow-down is the mean of its block over the mean of the reference's block in the same round.

    python benchmarks/backends.py [--rounds 12] [--steps 4000] [--quick]
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tensorboardX
import wandb

from benchmarks.timing import in_turn, machine, median_and_quartiles, print_table
from vibe_rl.metrics import MetricsLogger, TensorBoardBackend, WandbBackend, isolated

STEP_S = 150e-6
REFERENCE = "read with np.asarray, log nothing"
JSONL = "JSONL only"

Record = dict[str, jax.Array]
# Logs a record, and waits for what it has left to do (which isn't timed).
Logger = tuple[Callable[[int, Record], None], Callable[[], None]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=4000, help="steps of a block")
    parser.add_argument("--quick", action="store_true", help="see that it works; measure nothing")
    arguments = parser.parse_args()
    rounds, steps = (2, 50) if arguments.quick else (arguments.rounds, arguments.steps)

    os.environ.update(WANDB_MODE="offline", WANDB_SILENT="true")
    step = jitted_step()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        os.environ["WANDB_DIR"] = directory
        blocks = {}
        for name, make in LOGGERS.items():
            logger = stack.enter_context(make(Path(directory) / name.replace(" ", "_")))
            blocks[name] = lambda logger=logger: timed_block(step, logger, steps)
        times = in_turn(blocks, rounds)
    print(f"{machine()}\n{rounds} rounds of {steps} steps; median (quartiles) of the rounds\n")
    report(times)


def report(times: dict[str, np.ndarray]) -> None:
    """Print a line for each loop, from the µs of every step, an array of rounds and steps each."""
    means = {name: each.mean(axis=1) for name, each in times.items()}
    tails = {name: np.quantile(each, 0.999) for name, each in times.items()}
    print_table(
        ["each step", "µs a step", "slow-down", "p99.9, µs", "of JSONL's"],
        [
            [
                name,
                f"{np.median(means[name]):.0f}",
                median_and_quartiles(means[name] / means[REFERENCE]),
                f"{tails[name]:.0f}",
                f"{tails[name] / tails[JSONL]:.2f}",
            ]
            for name in times
        ],
    )


def timed_block(step: Callable, logger: Logger, steps: int) -> np.ndarray:
    """Run a block of the loop. Returns the nanoseconds that each step took, logging included."""
    log, settle = logger
    state = jnp.ones(128)
    ends = [time.perf_counter_ns()]
    for i in range(steps):
        state, metrics = step(state)
        log(i, metrics)
        ends.append(time.perf_counter_ns())
    jax.block_until_ready(state)
    ends[-1] = time.perf_counter_ns()
    settle()
    return np.diff(ends)


def jitted_step() -> Callable[[jax.Array], tuple[jax.Array, Record]]:
    """A step of about `STEP_S`: as many small matrix products as it takes on this machine."""
    weights = jax.random.orthogonal(jax.random.key(0), 128)

    def step_of(products: int) -> Callable:
        @jax.jit
        def step(state: jax.Array) -> tuple[jax.Array, Record]:
            state = jax.lax.fori_loop(0, products, lambda _, x: jnp.tanh(weights @ x) + 0.1, state)
            return state, {name: state[i] for i, name in enumerate(("a", "b", "c", "d", "e"))}

        return step

    def seconds(products: int) -> float:
        step, state = step_of(products), jnp.ones(128)
        trials = []
        for _ in range(200):
            start = time.perf_counter()
            state, _ = jax.block_until_ready(step(state))
            trials.append(time.perf_counter() - start)
        return float(np.median(trials))

    few, many = seconds(8), seconds(72)
    return step_of(max(round(8 + 64 * (STEP_S - few) / (many - few)), 1))


# -- the loops --------------------------------------------------------------------------------


@contextmanager
def nothing(_: Path) -> Iterator[Logger]:
    yield lambda *_: None, lambda: None


@contextmanager
def reading(_: Path) -> Iterator[Logger]:
    def read(_: int, record: Record) -> None:
        for value in record.values():
            np.asarray(value)

    yield read, lambda: None


def ours(
    *make_backends: Callable[[Path], object],
) -> Callable[[Path], AbstractContextManager[Logger]]:
    @contextmanager
    def open_logger(directory: Path) -> Iterator[Logger]:
        backends = [make(directory) for make in make_backends]
        with MetricsLogger(directory / "metrics.jsonl", backends) as logger:
            yield lambda i, record: logger.write({"step": i, **record}), logger.flush

    return open_logger


@contextmanager
def plain_wandb(_: Path) -> Iterator[Logger]:
    with wandb.init(project="benchmark", reinit="create_new") as run:

        def log(i: int, record: Record) -> None:
            run.log({"step": i, **{name: float(value) for name, value in record.items()}})

        yield log, lambda: time.sleep(0.5)


@contextmanager
def plain_tensorboardx(directory: Path) -> Iterator[Logger]:
    with tensorboardX.SummaryWriter(str(directory)) as writer:

        def log(i: int, record: Record) -> None:
            for name, value in record.items():
                writer.add_scalar(name, float(value), i)

        yield log, lambda: time.sleep(0.5)


@contextmanager
def synchronous_jsonl(directory: Path) -> Iterator[Logger]:
    directory.mkdir()
    with (directory / "metrics.jsonl").open("w") as file:

        def log(i: int, record: Record) -> None:
            row = {"step": i, **{name: float(value) for name, value in record.items()}}
            file.write(json.dumps(row) + "\n")
            file.flush()

        yield log, lambda: None


LOGGERS: dict[str, Callable[[Path], AbstractContextManager[Logger]]] = {
    "read nothing, log nothing": nothing,
    REFERENCE: reading,
    JSONL: ours(),
    "TensorBoard on a thread": ours(TensorBoardBackend),
    "TensorBoard isolated": ours(lambda directory: isolated(TensorBoardBackend, directory)),
    "W&B on a thread": ours(lambda _: WandbBackend()),
    "W&B isolated": ours(lambda _: isolated(WandbBackend)),
    "plain wandb.log": plain_wandb,
    "plain tensorboardX add_scalar": plain_tensorboardx,
    "synchronous JSONL": synchronous_jsonl,
}

if __name__ == "__main__":
    main()

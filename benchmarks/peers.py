"""The alternatives that a user would pick, each behind the same small interface."""

from __future__ import annotations

import gc
import importlib
import json
import logging
import logging.handlers
import queue
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]
# Logs a record, whose values are floats or JAX scalars, the way that the peer's manual shows.
Log = Callable[[int, Record], object]

_serial = count()


@dataclass(frozen=True)
class Peer:
    """Something that logs.

    Attributes:
        name: What tables and `--peers` call it.
        opens: Makes a logger with its files in a directory that doesn't exist yet. Leaving the
            context writes everything out.
        module: What must be importable.
        distribution: The package that has the version. None: the standard library.
    """

    name: str
    opens: Callable[[Path], AbstractContextManager[Log]]
    module: str
    distribution: str | None = None


def available(names: Iterable[str] | None = None) -> tuple[list[Peer], dict[str, str]]:
    """Find the peers that are installed.

    Args:
        names: Which ones to look for; None for all.

    Returns:
        Those found, and why the others are not, by name.
    """
    found, absent = [], {}
    for peer in PEERS if names is None else [peer_named(name) for name in names]:
        try:
            importlib.import_module(peer.module)
        except Exception as error:  # noqa: BLE001 - whatever an import raises is the reason
            absent[peer.name] = f"{type(error).__name__}: {error}".partition("\n")[0]
        else:
            found.append(peer)
    return found, absent


def peer_named(name: str) -> Peer:
    for peer in PEERS:
        if peer.name == name:
            return peer
    raise ValueError(f"no peer {name!r}; there are {', '.join(peer.name for peer in PEERS)}")


def versions(peers: Iterable[Peer]) -> dict[str, str]:
    return {peer.distribution: version(peer.distribution) for peer in peers if peer.distribution}


def _floats(record: Record) -> dict[str, float]:
    return {name: float(value) for name, value in record.items()}


# -- synchronous, and the standard library -----------------------------------------------------


@contextmanager
def _json_and_flush(directory: Path) -> Iterator[Log]:
    directory.mkdir()
    with (directory / "metrics.jsonl").open("w") as file:

        def log(step: int, record: Record) -> None:
            file.write(json.dumps({"step": step, **_floats(record)}) + "\n")
            file.flush()

        yield log


@contextmanager
def _queue_handler(directory: Path) -> Iterator[Log]:
    directory.mkdir()
    records: queue.SimpleQueue[Any] = queue.SimpleQueue()
    handler = logging.FileHandler(directory / "metrics.jsonl")
    listener = logging.handlers.QueueListener(records, handler)
    logger = logging.getLogger(f"benchmark{next(_serial)}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(logging.handlers.QueueHandler(records))
    listener.start()
    try:
        yield lambda step, record: logger.info(json.dumps({"step": step, **_floats(record)}))
    finally:
        listener.stop()
        handler.close()


@contextmanager
def _loguru(directory: Path) -> Iterator[Log]:
    from loguru import logger

    logger.remove()  # what was there: the terminal
    logger.add(directory / "metrics.jsonl", enqueue=True, format="{message}")
    try:
        yield lambda step, record: logger.info(json.dumps({"step": step, **_floats(record)}))
    finally:
        logger.remove()


# -- loggers of metrics ------------------------------------------------------------------------


@contextmanager
def _wandb(directory: Path) -> Iterator[Log]:
    import wandb

    directory.mkdir()
    settings = wandb.Settings(silent=True, console="off")
    run = wandb.init(
        project="benchmark",
        mode="offline",
        dir=str(directory),
        reinit="create_new",
        settings=settings,
    )
    with run:
        yield lambda step, record: run.log({"step": step, **_floats(record)})


@contextmanager
def _tensorboardx(directory: Path) -> Iterator[Log]:
    import tensorboardX

    with tensorboardX.SummaryWriter(str(directory)) as writer:

        def log(step: int, record: Record) -> None:
            for name, value in record.items():
                writer.add_scalar(name, float(value), step)

        yield log


@contextmanager
def _trackio(directory: Path) -> Iterator[Log]:
    import trackio  # whose files lie in TRACKIO_DIR, whatever the directory

    directory.mkdir()
    run = trackio.init(
        project=f"benchmark{next(_serial)}", embed=False, auto_log_cpu=False, auto_log_gpu=False
    )
    try:
        yield lambda step, record: run.log(_floats(record), step=step)
    finally:
        run.finish()


@contextmanager
def _mlflow(directory: Path) -> Iterator[Log]:
    import mlflow

    directory.mkdir()
    client = mlflow.MlflowClient(f"sqlite:///{directory}/mlflow.db")
    experiment = client.create_experiment("benchmark", artifact_location=str(directory))
    run = client.create_run(experiment).info.run_id
    pending: list[Any] = []

    def log(step: int, record: Record) -> None:
        time_ms = int(mlflow.utils.time.get_current_time_millis())
        metrics = [
            mlflow.entities.Metric(name, float(value), time_ms, step)
            for name, value in record.items()
        ]
        pending.append(client.log_batch(run, metrics, synchronous=False))

    try:
        yield log
    finally:
        for operation in pending:  # they don't end in order
            operation.wait()


@contextmanager
def _aim(directory: Path) -> Iterator[Log]:
    import aim

    directory.mkdir()
    options = {"system_tracking_interval": None, "capture_terminal_logs": False}
    runs = [aim.Run(repo=str(directory), **options)]
    try:
        yield lambda step, record: runs[0].track(_floats(record), step=step)
    finally:
        runs.pop().close()
        gc.collect()  # which writes once more, and must not find its files gone


@contextmanager
def _clu(directory: Path) -> Iterator[Log]:
    from clu import metric_writers

    directory.mkdir()

    class JsonlWriter(metric_writers.MultiWriter):  # of no others: has what is not measured
        def __init__(self) -> None:
            super().__init__([])
            self._file = (directory / "metrics.jsonl").open("w")

        def write_scalars(self, step: int, scalars: Record) -> None:
            self._file.write(json.dumps({"step": step, **_floats(scalars)}) + "\n")

        def flush(self) -> None:
            self._file.flush()

        def close(self) -> None:
            self._file.close()

    with closing(metric_writers.AsyncWriter(JsonlWriter())) as writer:
        # The values go as they are: reading them on the loop's thread is what it is there to spare.
        yield writer.write_scalars


@contextmanager
def _elements(directory: Path) -> Iterator[Log]:
    import elements

    directory.mkdir()
    elements.logger.printing.print_ = lambda *_, **__: None  # a line on the terminal each record
    step_counter = elements.Counter()
    logger = elements.Logger(step_counter, [elements.logger.JSONLOutput(str(directory))])

    def log(step: int, record: Record) -> None:
        step_counter.load(step)
        logger.add(_floats(record))
        logger.write()

    with closing(logger):
        yield log


PEERS = [
    Peer("jsonl", _json_and_flush, "json"),
    Peer("queuehandler", _queue_handler, "logging.handlers"),
    Peer("loguru", _loguru, "loguru", "loguru"),
    Peer("clu", _clu, "clu.metric_writers", "clu"),
    Peer("elements", _elements, "elements", "elements"),
    Peer("tensorboardX", _tensorboardx, "tensorboardX", "tensorboardX"),
    Peer("wandb", _wandb, "wandb", "wandb"),
    Peer("trackio", _trackio, "trackio", "trackio"),
    Peer("mlflow", _mlflow, "mlflow", "mlflow"),
    Peer("aim", _aim, "aim", "aim"),
]

"""What `soak.py` compares: the records that were accepted, and those that the backends have."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vibe_rl.metrics.backends.transaction_log import _ENDS_RECORD, TransactionLog

_MOST = 2_000_000
_EVENT_HEADER = struct.Struct("<QI")  # length, checksum; after the data, another checksum

Record = tuple[int, int]  # a writer's number, and the record's


class Account:
    """A writer's records, and when `write()` had accepted each, in a file that survives it.

    Args:
        writer: The writer's number.
    """

    def __init__(self, writer: int) -> None:
        self._writer = writer
        self._times = np.memmap(f"accepted.{writer}", np.float64, "w+", shape=_MOST)
        self._count = 0

    def write(self, logger: Any) -> None:
        """Log the next record."""
        logger.write({"writer": self._writer, "i": self._count, "loss": random.random()})
        self._times[self._count] = time.monotonic()
        self._count += 1

    @staticmethod
    def read(writer: int) -> np.ndarray:
        """When each record was accepted, on `time.monotonic()`'s clock."""
        times = np.memmap(f"accepted.{writer}", np.float64, "r", shape=_MOST)
        return np.array(times[: np.count_nonzero(times)])


class Recorder:
    """A backend of our own, which holds records back until it is flushed."""

    def __init__(self, path: str) -> None:
        self._file = Path(path).open("a", buffering=1 << 20)  # noqa: SIM115 - close() closes it

    def log(self, record: dict[str, Any], step: int | None = None) -> None:  # noqa: ARG002
        """Take a record."""
        self._file.write(f"{record['writer']} {record['i']}\n")

    def flush(self) -> None:
        """Let go of what is held back."""
        self._file.flush()

    def close(self) -> None:
        """Let go of everything."""
        self._file.close()


def recorded(path: str) -> Iterator[Record]:
    """What the backend of our own has."""
    with Path(path).open() as file:
        for line in file:
            writer, i = line.split()
            yield int(writer), int(i)


def tensorboard_points(directory: str) -> Iterator[Record]:
    """What TensorBoard's files hold, in the order of their names."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(Path(directory).iterdir()):
        data, position = path.read_bytes(), 0
        while position + _EVENT_HEADER.size <= len(data):
            length, _ = _EVENT_HEADER.unpack_from(data, position)
            position += _EVENT_HEADER.size
            event = Event.FromString(data[position : position + length])
            position += length + 4
            if position > len(data):
                break  # torn by a kill
            values = {value.tag: value.simple_value for value in event.summary.value}
            if values:
                yield int(values["writer"]), int(values["i"])


def wandb_rows(directory: str) -> Iterator[Record]:
    """What W&B's own logs hold, oldest first."""
    from wandb.proto.wandb_internal_pb2 import Record as Entry

    for path in sorted(Path(directory).glob("offline-run-*/*.wandb")):
        log, data = TransactionLog(path), b""
        while (chunk := log._next_chunk()) is not None:
            kind, part = chunk
            data += part
            if kind not in _ENDS_RECORD:
                continue
            items = Entry.FromString(data).history.item
            values = {item.key or item.nested_key[0]: item.value_json for item in items}
            data = b""
            if values:
                yield int(values["writer"]), int(values["i"])
        log.close()

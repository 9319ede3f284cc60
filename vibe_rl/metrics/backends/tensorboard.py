"""TensorBoard: numbers as scalar curves."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import struct
import time as clock
from array import array
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from vibe_rl.metrics.backends.inert import primary_only
from vibe_rl.metrics.backends.parts import Parts
from vibe_rl.metrics.backends.writable import writable

_log = logging.getLogger("vibe_rl")

# Large enough that an event never straddles it, so that a full disk can't leave half of one behind.
_BUFFER_BYTES = 1 << 20
_NUMBERS = frozenset({float, int})
# TensorBoard's steps are integers of 64 bits.
_STEPS = 2**63
# Kinds of records (sets of names) that are remembered at a time.
_MAX_KINDS = 256


@primary_only
class TensorBoardBackend:
    """Fans records out to TensorBoard's event files, which `tensorboard --logdir` shows.

    Every number in a record becomes a scalar, `step` and `wall_time` included; a boolean is 0 or 1.
    A mapping inside a record gives tags such as `eval/return`. Everything else (text, None, lists)
    is passed over. TensorBoard keeps scalars as float32; the metrics file has them exactly.

    In a job of several processes (`jax.distributed`), the first one writes; on the others this
    makes a backend that does nothing.

    A point lies at its record's step; without one, or with one that takes more than 64 bits, at the
    record's number in the metrics file. Its time is when the record was written, not delivered.

    Args:
        log_dir: Where the event file goes; made if missing. Each backend writes a file of its own,
            from its first number on, so a run that is opened again adds to its curves.
        split_by: A field, such as `"seed"`: records that have it go to a directory of their own,
            `log_dir/seed-3`, whose curves TensorBoard draws beside the others. Records with more
            values than 128 go to `log_dir` itself, with a warning. None: no field.

    Raises:
        ImportError: If neither tensorboardX nor TensorBoard itself (which `torch.utils.tensorboard`
            needs) is installed.
        ValueError: If `log_dir` is a URL.
        OSError: If `log_dir` can't be written.

    Examples:
        >>> backend = TensorBoardBackend(log_dir="runs/example/logs")
        >>> backend.log({"loss": 0.42, "eval": {"return": 195.0}}, step=1000)
        >>> backend.close()
    """

    def __init__(self, log_dir: str | os.PathLike[str], *, split_by: str | None = None) -> None:
        self._parts = Parts(split_by, lambda _, label: TensorBoardBackend(self._dir / label))
        self._new_event, self._crc32c = _library()
        self._dir = writable(log_dir, "log_dir")
        self._file: BinaryIO | None = None
        self._head = self._new_event()
        self._kinds: dict[tuple[str, ...], tuple[Callable[..., bytes], list[Any]]] = {}
        self._lengths: dict[int, bytes] = {}  # what comes before an event of so many bytes
        self._ordinal = 0

    @property
    def identity(self) -> str:
        """What tells this backend from others on a metrics file: its directory, what splits it."""
        return f"TensorBoardBackend {self._dir}{self._parts.suffix}"

    def log(self, record: dict[str, Any], step: int | None = None) -> None:
        """Add a record's numbers now.

        Args:
            record: Plain Python values.
            step: Where on the axis they lie. None: at the number of records logged before.
        """
        self.log_at(record, step, time=clock.time(), ordinal=self._ordinal)

    def log_at(
        self, record: dict[str, Any], step: int | None, *, time: float, ordinal: int
    ) -> None:
        """Add a record's numbers.

        Args:
            record: Plain Python values.
            step: Where on the axis they lie; None: at `ordinal`.
            time: When the record was written, in epoch seconds.
            ordinal: The record's number in the metrics file, from 0.

        Raises:
            OSError: If the disk is full. Nothing was added then, so the call can be repeated.
        """
        if (part := self._parts.of(record)) is not None:
            part.log_at(record, step, time=time, ordinal=ordinal)
            return
        # Most records are flat, and quickly seen to be so.
        is_flat = _NUMBERS.issuperset(map(type, record.values()))
        if scalars := record if is_flat else _scalars(record):
            head = self._head
            head.wall_time = time
            head.step = step if step is not None and -_STEPS <= step < _STEPS else ordinal
            data = head.SerializeToString() + self._summary(scalars)
            if self._file is None:
                self._file = self._open()
            self._append(self._file, data)
        self._ordinal = ordinal + 1

    def restart(self, step: int) -> None:
        """Have TensorBoard drop the points past a step, which the run has gone back to.

        Args:
            step: The last step whose points stay.
        """
        if self._file is None:
            self._file = self._open()
        event = self._new_event(wall_time=clock.time(), step=step + 1)
        event.session_log.status = event.session_log.START
        self._append(self._file, event.SerializeToString())
        for part in self._parts:
            part.restart(step)
        # Now, for those of an earlier process may get no more records, or not before a kill.
        for directory in self._left_parts():
            part = TensorBoardBackend(directory)
            part.restart(step)
            part.close()

    def flush(self) -> None:
        """Hand everything to the operating system, so that TensorBoard sees it.

        If somebody has deleted or moved the event file, a new one is begun.

        Raises:
            OSError: If the disk is full. What did not fit is kept for the next call.
        """
        for part in self._parts:
            part.flush()
        if self._file:
            self._file.flush()
            if not _has_its_name(self._file):
                _log.warning(
                    "%s was deleted or moved: TensorBoard gets what follows in a new file; "
                    "`vibe-rl sync --from-start` delivers all of the run",
                    self._file.name,
                )
                self._file.close()
                self._file = None

    def close(self) -> None:
        """Flush, and close the event file."""
        with ExitStack() as stack:  # closes the others if one raises
            if self._file:
                stack.callback(self._file.close)
            for part in self._parts:
                stack.callback(part.close)

    def _left_parts(self) -> set[Path]:
        """The directories of parts that this backend has not made, or not yet."""
        prefix = self._parts.prefix
        if prefix is None:
            return set()
        files = self._dir.glob(f"{prefix}*/events.out.tfevents.*")
        return {file.parent for file in files} - {self._dir / label for label in self._parts.labels}

    def _open(self) -> BinaryIO:
        """Begin the event file. Not before there is something for it: empty ones would pile up."""
        # TensorBoard reads a directory's files in the order of their names.
        name = (
            f"events.out.tfevents.{clock.time():.6f}.{socket.gethostname()}.{secrets.token_hex(4)}"
        )
        self._dir.mkdir(parents=True, exist_ok=True)  # somebody may have deleted it
        file = (self._dir / name).open("xb", buffering=_BUFFER_BYTES)
        version = self._new_event(wall_time=clock.time(), file_version="brain.Event:2")
        self._append(file, version.SerializeToString())
        return file

    def _summary(self, scalars: dict[str, float]) -> bytes:
        """The part of an event that holds the numbers, as `Event.SerializeToString` gives it.

        Records of one kind come again and again, and differ in the numbers alone: four bytes each,
        at places that stay the same.
        """
        tags = tuple(scalars)
        if tags not in self._kinds:
            if len(self._kinds) == _MAX_KINDS:
                self._kinds.clear()
            self._kinds[tags] = _pieces(self._new_event, tags)
        pack, pieces = self._kinds[tags]
        pieces[1::2] = scalars.values()
        try:
            return pack(*pieces)
        except OverflowError:  # beyond float32
            pieces[1::2] = array("f", scalars.values())
            return pack(*pieces)

    def _append(self, file: BinaryIO, data: bytes) -> None:
        """Append an event in the framing of TensorFlow's record files, in one piece.

        The libraries' own writers take four writes for it (slower, and a full disk tears the record
        apart), or a queue and a thread.
        """
        size = len(data)
        if size not in self._lengths:
            length = struct.pack("<Q", size)
            self._lengths[size] = length + self._checksum(length)
        file.write(self._lengths[size] + data + self._checksum(data))

    def _checksum(self, data: bytes) -> bytes:
        crc = self._crc32c(data)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _has_its_name(file: BinaryIO) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(file.name))  # noqa: PTH116 - no Path
    except FileNotFoundError:
        return False


def _library() -> tuple[Callable[..., Any], Callable[[bytes], int]]:
    """The class of events, and CRC-32C: native where tensorboardX finds the package crc32c."""
    try:
        from tensorboardX.crc32c import crc32c  # noqa: PLC0415 - optional
        from tensorboardX.proto.event_pb2 import Event  # noqa: PLC0415
    except ImportError:
        try:
            from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415
            from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import (  # noqa: PLC0415
                crc32c,
            )
        except ImportError:
            raise ImportError(
                "TensorBoardBackend needs tensorboardX, or the TensorBoard behind torch.utils: "
                "pip install 'vibe-rl[tensorboard]'"
            ) from None
    return Event, crc32c


def _pieces(
    new_event: Callable[..., Any], tags: tuple[str, ...]
) -> tuple[Callable[..., bytes], list[Any]]:
    """What packs a summary of these tags, and its arguments: bytes and numbers, by turns."""
    event = new_event()
    pieces: list[Any] = []
    for tag in tags:
        # Written by itself, a summary of one value is what it is among others, and its last field
        # is the number.
        alone = new_event().summary
        alone.value.add(tag=tag, simple_value=0.0)
        event.summary.value.add(tag=tag, simple_value=0.0)
        pieces += [alone.SerializeToString()[:-4], 0.0]
    values = event.summary.ByteSize()
    pieces[0] = event.SerializeToString()[:-values] + pieces[0]
    layout = "".join(f"{len(piece)}sf" for piece in pieces[::2])
    return struct.Struct(f"<{layout}").pack, pieces


def _scalars(record: dict[str, Any]) -> dict[str, float]:
    scalars = {}
    for name, value in record.items():
        if isinstance(value, float | int):
            scalars[name] = value
        elif isinstance(value, dict):
            for tag, number in _scalars(value).items():
                scalars[f"{name}/{tag}"] = number
    return scalars

"""How much of a run has reached W&B's own log on the disk."""

from __future__ import annotations

import struct
from pathlib import Path

# A LevelDB log: after the file's header, blocks of 32 KiB; in them chunks of records, each with a
# header: checksum, length, and whether the chunk is a whole record (1) or the last of one (4).
_FILE_HEADER_BYTES = 7
_BLOCK = 32_768
_CHUNK_HEADER = struct.Struct("<IHB")
_ENDS_RECORD = (1, 4)


class TransactionLog:
    """Counts the rows in a run's `.wandb` file while W&B appends to it.

    Args:
        path: The file; it exists already.
        first: W&B's own step of the first row that counts.
    """

    def __init__(self, path: Path, first: int = 0) -> None:
        from wandb.proto.wandb_internal_pb2 import (  # type: ignore[attr-defined]  # noqa: PLC0415
            Record,
        )

        self._parse = Record.FromString
        self._file = path.open("rb")
        self._first = first
        self._position = _FILE_HEADER_BYTES
        self._record = b""
        self._rows = 0

    def rows(self) -> int:
        """Read on, and return how many rows that count the file holds by now."""
        while (chunk := self._next_chunk()) is not None:
            kind, data = chunk
            self._record += data
            if kind in _ENDS_RECORD:
                record = self._parse(self._record)
                self._rows += record.HasField("history") and record.history.step.num >= self._first
                self._record = b""
        return self._rows

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _next_chunk(self) -> tuple[int, bytes] | None:
        left = _BLOCK - self._position % _BLOCK
        if left < _CHUNK_HEADER.size:  # padding
            self._position += left
        self._file.seek(self._position)
        header = self._file.read(_CHUNK_HEADER.size)
        if len(header) < _CHUNK_HEADER.size:
            return None
        _, length, kind = _CHUNK_HEADER.unpack(header)
        data = self._file.read(length)
        if len(data) < length:
            return None
        self._position += _CHUNK_HEADER.size + length
        return kind, data

"""What is logged, on its way into the writer's queue: encoded now, or by the writer's thread."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vibe_rl.metrics.batch import ColumnBlock, cut, host_columns
from vibe_rl.metrics.host import host_record
from vibe_rl.metrics.items import Block
from vibe_rl.metrics.jit.messages import Message, Unread, Words
from vibe_rl.metrics.jit.packed_record import PackedRecord
from vibe_rl.metrics.jit.packing import Packed
from vibe_rl.metrics.jsonl import encode
from vibe_rl.metrics.writer import Writer


class Intake:
    """Makes items of the writer's queue of records, batches, and what compiled functions send.

    Args:
        writer: Whose queue it is.
        queue_size: Of that queue.
        process: What each record's field `process` says; None for no such field.
    """

    def __init__(self, writer: Writer, queue_size: int, process: int | None) -> None:
        self._put = writer.put
        self._put_block = writer.put_block
        self._most = max(queue_size // 16, 1)
        self._process = process

    def item(self, record: Mapping[str, Any] | Packed, elapsed_us: int) -> bytes | Block:
        """Make one of a record: its line, or a block that makes it.

        Args:
            record: As `MetricsLogger.write` takes it.
            elapsed_us: Its `wall_time`, in microseconds.

        Raises:
            TypeError: As `write` does.
            ValueError: As `write` does.
        """
        if isinstance(record, Packed):
            complete = functools.partial(self._complete, elapsed_us=elapsed_us)
            return PackedRecord(record, complete)
        row = host_record(record)
        if "wall_time" not in row:  # as `_complete` does, without a call
            row["wall_time"] = elapsed_us / 1e6
        if self._process is not None:
            row.setdefault("process", self._process)
        return encode(row)

    def blocks(
        self, columns: Mapping[str, Any] | Packed, elapsed_us: int
    ) -> tuple[int, Iterator[ColumnBlock]]:
        """Take a snapshot of a batch: gives its number of records, and the records.

        Raises:
            TypeError: As `MetricsLogger.write_batch` does.
            ValueError: As `MetricsLogger.write_batch` does.
        """
        tree, length = host_columns(columns)
        self._complete(tree, elapsed_us)
        return length, cut(tree, length, self._most)

    def put_blocks(self, blocks: Iterable[ColumnBlock]) -> None:
        """Queue many records."""
        for block in blocks:
            self._put_block(block)

    def put_message(self, message: Message, words: Words, records: int, elapsed_us: int) -> None:
        """Queue what a compiled function has sent: so many records."""
        rate = message.rate(words, elapsed_us / 1e6)
        if message.is_quick:
            complete = functools.partial(self._complete, elapsed_us=elapsed_us, rate=rate)
            put = self._put if records == 1 else self._put_block
            put(Unread(message, words, records, complete))
        elif message.is_record:
            self._put(self.item(message.read(words), elapsed_us))
        else:
            self.put_blocks(self.blocks({**rate, **message.read(words)}, elapsed_us)[1])

    def _complete(
        self, row: dict[str, Any], elapsed_us: int, rate: Mapping[str, float] | None = None
    ) -> None:
        """Add to a record, or to columns, the fields that all of a logger's records get."""
        if rate:
            row |= {**rate, **row}
        if "wall_time" not in row:
            row["wall_time"] = elapsed_us / 1e6
        if self._process is not None:
            row.setdefault("process", self._process)

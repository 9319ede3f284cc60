"""What the writer's queue holds: finished lines, and blocks whose lines are yet to be made."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

_log = logging.getLogger("vibe_rl")

# Adds to a record, or to columns, the fields that all of a logger's records get.
Complete = Callable[[dict[str, Any]], None]


class Block(Protocol):
    """Several records as one item of the queue; the writer's thread makes their lines.

    Attributes:
        records: How many records.
    """

    records: int

    def __len__(self) -> int:
        """The most bytes that its lines can take."""

    def lines(self) -> bytes:
        """The records' lines."""


class LinesOf:
    """Makes the lines of items, on the writer's thread.

    Nobody is there to be told what is wrong with a block, and the thread must go on: a block that
    raises is lost, and counted.

    Attributes:
        lost: Records of such blocks.
    """

    def __init__(self) -> None:
        self.lost = 0

    def __call__(self, item: bytes | Block) -> bytes:
        """Make them: none if that fails."""
        if isinstance(item, bytes):
            return item
        try:
            return item.lines()
        except Exception:  # noqa: BLE001 - see above
            if not self.lost:
                _log.exception("%d records are lost; further ones are counted", item.records)
            self.lost += item.records
            return b""


def records_of(item: bytes | Block) -> int:
    """How many records it holds."""
    return 1 if isinstance(item, bytes) else item.records


def count_records(items: list[bytes | Block], blocks: list[Block]) -> int:
    """How many records these items hold, of which those are blocks."""
    return len(items) + sum(block.records - 1 for block in blocks)

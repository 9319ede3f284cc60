"""Packed records in the writer's queue: unpacked on its thread, not the caller's."""

from __future__ import annotations

import functools

import numpy as np

from vibe_rl.metrics.host import host_record, host_words
from vibe_rl.metrics.items import Complete
from vibe_rl.metrics.jit.packing import Layout, Packed
from vibe_rl.metrics.jsonl import encode


class PackedRecord:
    """One record as an item of the writer's queue: see `items.Block`.

    The words are a snapshot as small as any, and their types were checked when they were packed, so
    that there is nothing left that the caller has to do, or could be told.

    Args:
        packed: The record; its words are copied, never shared with a device.
        complete: Adds to a row the fields that all records get.

    Attributes:
        records: 1.

    Raises:
        TypeError: As `host_record()` and `encode()` of it do.
        ValueError: Likewise.
    """

    records = 1

    def __init__(self, packed: Packed, complete: Complete) -> None:
        self._words = np.array(host_words(packed))
        self._layout = packed.layout
        self._complete = complete
        self._size = _line_size(packed.layout)

    def __len__(self) -> int:
        return self._size

    def lines(self) -> bytes:
        """The record's line."""
        row = host_record(Packed(self._words, self._layout))
        self._complete(row)
        return encode(row)


@functools.lru_cache
def _line_size(layout: Layout) -> int:
    """The most bytes that a line of this layout takes; raises what making one would."""
    width = max((group.stop for group in layout.groups), default=0)
    line = encode(host_record(Packed(np.zeros(width, np.uint32), layout)))
    # Each number may have 24 characters, or its name a second time for what it is instead; and two
    # fields are to come.
    return 2 * len(line) + 24 * width + 99

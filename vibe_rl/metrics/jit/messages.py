"""What compiled code sends: read on the host, by the writer's thread where that is quick."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from vibe_rl.metrics.batch import cut, host_columns
from vibe_rl.metrics.host import host_record
from vibe_rl.metrics.items import Complete
from vibe_rl.metrics.jit.packing import Layout
from vibe_rl.metrics.jsonl import encode

Words = np.ndarray[Any, np.dtype[np.uint32]]

# So many are read in a few hundred microseconds.
_QUICK_WORDS = 4_096


class Message:
    """How the host reads what one callback brings.

    A lane sends one word that is not 0 if its record is due, one for each label, and the record's.
    Lanes lie along the axes in front of that.

    Args:
        layout: Of the record's words.
        shape: Of all words.
        labels: The names of further fields.
        lane: What to call a record's index along the lanes' axes.
        rows: How many records lie along the first axis of the record's values; None if it is one.
        reverse: Whether the last of these came first.
        is_due: Whether every lane's record is due.
        rate: Measures how fast its records' step grows, if it is to say so.

    Attributes:
        is_record: Whether it holds one record, not columns.
        is_quick: Whether it is so little that the writer's thread may read it.
        most: How many records it holds if all are due.
        line_size: The most bytes that a record's line can take.

    Raises:
        TypeError: If such records can't be logged.
        ValueError: Likewise.
    """

    def __init__(
        self,
        layout: Layout,
        shape: tuple[int, ...],
        *,
        labels: tuple[str, ...],
        lane: str,
        rows: int | None,
        reverse: bool,
        is_due: bool,
        rate: Rate | None,
    ) -> None:
        self.is_record = rows is None and len(shape) == 1
        self.is_quick = math.prod(shape) <= _QUICK_WORDS
        self._layout = layout
        self._shape = shape
        self._labels = labels
        self._lane = lane
        self._rows = rows
        self._reverse = reverse
        self.most = math.prod(shape[:-1]) * (1 if rows is None else rows)
        self._is_due = is_due or self.is_record
        self._rate = rate
        # Now, for the writer's thread has nobody to tell what is wrong with a record.
        sample = self.lines(np.ones(math.prod(shape), np.uint32), lambda _: None)
        # A number has at most 24 characters, or its name a second time for what it is instead; and
        # three fields are to come.
        self.line_size = (2 * len(sample) + 24 * math.prod(shape)) // max(self.most, 1) + 99

    def count(self, words: Words) -> int:
        """How many records these words hold."""
        if self._is_due:
            return self.most
        due = np.count_nonzero(words.reshape(self._shape)[..., 0])
        return int(due) * (1 if self._rows is None else self._rows)

    def rate(self, words: Words, now: float) -> dict[str, float]:
        """The field that says how fast the step has grown, if there is to be one and it has."""
        return self._rate.measure(self.read(words)["step"], now) if self._rate else {}

    def lines(self, words: Words, complete: Complete) -> bytes:
        """The records' lines; `complete` adds the fields that all of them get."""
        contents = self.read(words)
        if self.is_record:
            row = host_record(contents)
            complete(row)
            return encode(row)
        columns, records = host_columns(contents)
        complete(columns)
        return b"".join(block.lines() for block in cut(columns, records, most=max(records, 1)))

    def read(self, words: Words) -> dict[str, Any]:
        """The record, or the columns."""
        words = words.reshape(self._shape)
        labels: dict[str, Any] = {name: words[..., i] for i, name in enumerate(self._labels, 1)}
        record = self._layout.unpack(words[..., 1 + len(labels) :])
        if self.is_record:
            return {**labels, **record} if labels else record
        due = words[..., 0] != 0
        lanes = self._shape[:-1]
        if lanes:
            indices = np.moveaxis(np.indices(lanes), 0, -1)
            if self._lane in labels:  # of a mesh axis, around them
                indices = np.concatenate([labels[self._lane][..., None], indices], -1)
            labels[self._lane] = indices[..., 0] if indices.shape[-1] == 1 else indices
        if self._rows is not None:  # the records of a moment side by side, the first moment first
            due, labels = self._along_rows(due), _map(self._along_rows, labels)
            record = _map(functools.partial(self._rows_first, lanes=len(lanes)), record)
        axes = due.ndim
        keep = None if due.all() else due.reshape(-1)

        def column(values: Any) -> Any:
            if axes > 1:
                values = values.reshape(due.size, *values.shape[axes:])
            return values if keep is None else values[keep]

        return {**_map(column, labels), **_map(column, record)}

    def _along_rows(self, values: Any) -> Any:
        return np.broadcast_to(values, (self._rows or 0, *np.shape(values)))

    def _rows_first(self, values: Any, lanes: int) -> Any:
        if lanes:
            values = np.moveaxis(values, lanes, 0)
        return values[::-1] if self._reverse else values


class Rate:
    """How fast the step of a scan's records grows: from one callback to the next, by arrival.

    Args:
        name: What to call it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._before: tuple[float, float] | None = None

    def measure(self, steps: np.ndarray[Any, Any], now: float) -> dict[str, float]:
        """The steps a second since the last call; no field if this is the first, or a new run."""
        step = float(np.max(steps))
        before, self._before = self._before, (step, now)
        if before is None or step <= before[0] or now <= before[1]:
            return {}
        return {self._name: (step - before[0]) / (now - before[1])}


class Unread:
    """What one callback has brought, as an item of the writer's queue: see `items.Block`.

    Attributes:
        records: How many records it holds.
    """

    __slots__ = ("_complete", "_message", "_words", "records")

    def __init__(self, message: Message, words: Words, records: int, complete: Complete) -> None:
        self.records = records
        self._message = message
        self._words = words
        self._complete = complete

    def __len__(self) -> int:
        return self.records * self._message.line_size

    def lines(self) -> bytes:
        """The records' lines."""
        return self._message.lines(self._words, self._complete)


def _map(function: Callable[[Any], Any], columns: dict[str, Any]) -> dict[str, Any]:
    """Apply it to every array; text and None stay, for every record has the same."""
    return {
        name: _map(function, value)
        if isinstance(value, dict)
        else function(value)
        if isinstance(value, np.ndarray | np.generic)
        else value
        for name, value in columns.items()
    }

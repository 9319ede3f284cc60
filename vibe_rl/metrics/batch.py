"""Batches: arrays with one leading axis → records, whose lines the writer's thread makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter
from typing import Any

import numpy as np
import orjson

from vibe_rl.metrics.host import (
    EXACT_DTYPES,
    host_array,
    host_value,
    start_copies,
    unpack,
)
from vibe_rl.metrics.jit.packing import Packed
from vibe_rl.metrics.jsonl import encode
from vibe_rl.metrics.unloggable import UnloggableError

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
# So few numbers in a block that their text takes the writer's thread 100 to 200 µs.
_BLOCK_COST = 2_048

# A column's rows: the rows of an array, or host values.
Column = np.ndarray[Any, Any] | list[Any]
_COLUMN = (np.ndarray, list)


class ColumnBlock:
    """Consecutive records of a batch: one item of the writer's queue.

    Args:
        tree: Names to columns, to host values that all records share, or to a mapping of these.
            Nobody else may change its arrays.
        records: How many records: the length of every column.
        template: A line of these records, with `%b` in each column's place.

    Attributes:
        records: How many records.
    """

    def __init__(self, tree: dict[str, Any], records: int, template: bytes) -> None:
        self._tree = tree
        self._template = template
        self.records = records
        self._size = len(template) * records + sum(map(_text_size, _columns(tree)))

    def __len__(self) -> int:
        return self._size

    def lines(self) -> bytes:
        """The records' lines: what `encode` gives for each, at a fraction of its cost."""
        columns = [_texts(column) for column in _columns(self._tree)]
        texts: list[bytes] = [b""] * (len(columns) * self.records)
        for index, column in enumerate(columns):
            texts[index :: len(columns)] = column
        # Of a million rows a second, a `%` for each would be a third of the cost.
        lines = (self._template * self.records) % tuple(texts)
        if lines.find(b"null") < 0:
            return lines
        # As in `encode`: orjson writes non-finite numbers as null.
        return b"".join(
            encode(_row(self._tree, index)) if line.find(b"null") >= 0 else line
            for index, line in enumerate(lines.splitlines(keepends=True))
        )


def host_columns(columns: Mapping[str, Any] | Packed) -> tuple[dict[str, Any], int]:
    """Bring a batch's columns to the host, each in one transfer, and check them.

    Returns:
        The columns as `ColumnBlock` takes them, arrays still shared with the caller; and their
        length.

    Raises:
        TypeError: If `columns` is no mapping, or a value is of a kind that the file can't hold.
        ValueError: If there is no column, columns differ in length, or a value can't be read or
            written.
    """
    if not isinstance(columns, Mapping | Packed):
        raise TypeError(
            "a batch is a mapping of names to arrays with one leading axis, such as "
            f"{{'step': range(3), 'loss': losses}}, not {columns!r:.99}"
        )
    try:
        tree = _host_tree(unpack(columns) if isinstance(columns, Packed) else columns)
    except UnloggableError as error:
        raise error.public() from error.__cause__
    lengths = {name: len(column) for name, column in _named_columns(tree)}
    if not lengths:
        raise ValueError(
            f"a batch has at least one column (an array, a list or a range); {list(tree)} are "
            "single values: write() logs one record"
        )
    name, length = next(iter(lengths.items()))
    for other, its_length in lengths.items():
        if its_length != length:
            raise ValueError(
                f"a batch's columns have one length: {name!r} has {length} rows, {other!r} has "
                f"{its_length}"
            )
    for name, column in _named_columns(tree):
        if isinstance(column, list):
            encode({name: column})
    if length:
        encode(_row(tree, 0))
    return tree, length


def cut(tree: dict[str, Any], length: int, most: int) -> Iterator[ColumnBlock]:
    """Cut host columns into blocks of at most `most` records, none of whose arrays is the caller's.

    Blocks share a copy of the rows of several, for making one takes as long as the text of ten
    numbers.
    """
    cost = sum(map(_cost, _columns(tree)))
    step = max(min(most, _BLOCK_COST * length // max(cost, 1)), 1)
    template = _template(tree) + b"\n"
    copied = max(most // step, 1) * step
    for begin in range(0, length, copied):
        rows = _map(_copy, _map(itemgetter(slice(begin, begin + copied)), tree))
        for start in range(0, min(copied, length - begin), step):
            records = min(step, length - begin - start)
            yield ColumnBlock(_map(itemgetter(slice(start, start + step)), rows), records, template)


def _host_tree(columns: Mapping[str, Any]) -> dict[str, Any]:
    tree = {}
    name: Any = None
    start_copies(columns.values())
    try:
        for name, value in columns.items():
            tree[name] = _host_column(value)
    except UnloggableError as error:
        error.path.append(str(name))
        raise
    return tree


def _host_column(value: Any) -> Any:
    if isinstance(value, Packed):
        value = unpack(value)
    if isinstance(value, Mapping):
        return _host_tree(value)
    if isinstance(value, range):
        steps = np.arange(value.start, value.stop, value.step)
        value = steps if steps.dtype.kind == "i" else list(value)  # arange rounds beyond int64
    array = host_array(value)
    if array is None:
        return host_value(value)
    if array.ndim == 0:
        return host_value(array[()])
    if array.dtype.kind in "Mm":  # of which tolist() makes integers where datetime is too coarse
        return [host_value(row) for row in array]
    if array.dtype.kind in "OUS":
        return host_value(array.tolist())
    if array.size:
        host_value(array.flat[0])  # raises if no element of this type can be logged
    return array.reshape(-1) if array.size == len(array) else array


def _row(tree: dict[str, Any], index: int) -> dict[str, Any]:
    return {
        name: _row(value, index)
        if isinstance(value, dict)
        else host_value(value[index])
        if isinstance(value, _COLUMN)
        else value
        for name, value in tree.items()
    }


def _map(function: Callable[[Column], Column], tree: dict[str, Any]) -> dict[str, Any]:
    """Apply it to every column."""
    return {
        name: _map(function, value)
        if isinstance(value, dict)
        else function(value)
        if isinstance(value, _COLUMN)
        else value
        for name, value in tree.items()
    }


def _copy(column: Column) -> Column:
    if isinstance(column, list):
        return column  # a slice of a list is one already
    return column.astype(column.dtype.newbyteorder("="), order="C")


def _columns(tree: dict[str, Any]) -> Iterator[Column]:
    return (column for _, column in _named_columns(tree))


def _named_columns(tree: dict[str, Any], path: str = "") -> Iterator[tuple[str, Column]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _named_columns(value, f"{path}{name}.")
        elif isinstance(value, _COLUMN):
            yield f"{path}{name}", value


def _template(tree: dict[str, Any]) -> bytes:
    """A line with `%b` in each column's place."""
    fields = []
    for name, value in tree.items():
        if isinstance(value, dict):
            text = _template(value)
        elif isinstance(value, _COLUMN):
            text = b"%b"
        else:
            text = orjson.dumps(value, None, _OPTIONS).replace(b"%", b"%%")
        fields.append(orjson.dumps(name).replace(b"%", b"%%") + b":" + text)
    return b"{" + b",".join(fields) + b"}"


def _texts(column: Column) -> list[bytes]:
    """The text of each of a column's rows."""
    if isinstance(column, np.ndarray) and column.ndim == 1 and column.dtype in EXACT_DTYPES:
        return orjson.dumps(column, None, _OPTIONS)[1:-1].split(b",")
    if isinstance(column, np.ndarray) and column.ndim == 1 and column.itemsize <= 2:
        texts = _NARROW_TEXTS.setdefault(column.dtype, _NarrowTexts(column.dtype))
        return [texts[bits] for bits in column.view(f"u{column.itemsize}").tolist()]
    return [orjson.dumps(host_value(value), None, _OPTIONS) for value in column]


class _NarrowTexts(dict[int, bytes]):
    """The texts of a 16- or 8-bit type's numbers, by their bits: found once, for that is slow."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        super().__init__()
        self._dtype = dtype

    def __missing__(self, bits: int) -> bytes:
        number = np.array(bits, f"u{self._dtype.itemsize}").view(self._dtype)[()]
        text = self[bits] = orjson.dumps(host_value(number), None, _OPTIONS)
        return text


_NARROW_TEXTS: dict[np.dtype[Any], _NarrowTexts] = {}


def _text_size(column: Column) -> int:
    if isinstance(column, list):
        return len(orjson.dumps(column, None, _OPTIONS))
    return column.size * (4 * column.itemsize + 4)  # -1.17549435e-38, of 4 bytes, takes 15


def _cost(column: Column) -> int:
    """What making a column's text costs, in numbers of a common type."""
    if isinstance(column, list):
        return _text_size(column) // 8
    return column.size if column.dtype in EXACT_DTYPES else 16 * column.size

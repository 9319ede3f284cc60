"""A column put together from parts: what each stretch of a file holds of it."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Mask = NDArray[np.bool_]

_MISSING = {"O": None, "f": np.nan}


class Part(NamedTuple):
    """A column in a stretch of records.

    Attributes:
        values: One for each record: int64, uint64, float64, bool or object; anything where missing.
        present: Which records have the field, and not as null; None means all.
    """

    values: Array
    present: Mask | None


class Column(NamedTuple):
    """A whole column.

    Attributes:
        values: One for each record; NaN or None where missing.
        present: Which records have it; a NaN that was logged is present.
    """

    values: Array
    present: Mask


def parts_of(
    records: Sequence[Mapping[str, Any]], wanted: Collection[str] | None
) -> dict[str, Part]:
    """The columns of some records; those of a mapping in a record are `mapping/name`.

    Args:
        records: The records.
        wanted: Which columns; None means all.

    Returns:
        A part for each column that any of these records has.
    """
    lists: dict[str, list[Any]] = {}
    _gather(records, "", wanted, lists)
    parts = {name: _part(values) for name, values in lists.items()}
    return {name: part for name, part in parts.items() if part is not None}


def join(parts: Iterable[tuple[int, Part]], rows: int) -> Column:
    """Put a column together.

    Args:
        parts: Each with the number of the record at which it begins.
        rows: How many records there are in all.
    """
    parts = list(parts)
    present = np.zeros(rows, np.bool_)
    for start, part in parts:
        present[start : start + len(part.values)] = True if part.present is None else part.present
    dtype = _common_dtype([part for _, part in parts], is_whole=bool(present.all()))
    values = np.full(rows, _MISSING.get(dtype.kind, 0), dtype)
    for start, part in parts:
        there = slice(None) if part.present is None else part.present
        values[start : start + len(part.values)][there] = part.values[there]
    if dtype.kind == "O":  # lest it depend on a part's other values whether a 1 is a 1.0
        values = _objects([float(each) if type(each) is int else each for each in values.tolist()])
    return Column(values, present)


def _gather(
    records: Sequence[Mapping[str, Any]],
    prefix: str,
    wanted: Collection[str] | None,
    lists: dict[str, list[Any]],
) -> None:
    for name in _names(records, prefix, wanted):
        values = [record.get(name) for record in records]
        full = prefix + name
        if dict in set(map(type, values)):
            inner = [value if type(value) is dict else {} for value in values]
            _gather(inner, f"{full}/", wanted, lists)
            values = [None if type(value) is dict else value for value in values]
        if wanted is None or full in wanted:
            if full in lists:  # a field named "a/b", and one "b" in a mapping "a"
                pairs = zip(lists[full], values, strict=True)
                values = [old if new is None else new for old, new in pairs]
            lists[full] = values


def _names(
    records: Sequence[Mapping[str, Any]], prefix: str, wanted: Collection[str] | None
) -> Iterable[str]:
    """The names of the fields that are looked for in these records."""
    if wanted is None:
        return dict.fromkeys(chain.from_iterable(records))
    rests = [name.removeprefix(prefix).split("/") for name in wanted if name.startswith(prefix)]
    return {"/".join(rest[:end]): None for rest in rests for end in range(1, len(rest) + 1)}


def _part(values: list[Any]) -> Part | None:
    kinds = set(map(type, values))
    present = None
    if type(None) in kinds:
        kinds.discard(type(None))
        present = np.array([value is not None for value in values])
    if not kinds:
        return None
    if kinds == {bool} and present is None:
        return Part(np.array(values, np.bool_), None)
    if not kinds <= {int, float}:
        return Part(_objects(values), present)
    numbers = values if present is None else [0 if value is None else value for value in values]
    array = np.array(numbers)
    if array.dtype == float and kinds == {int}:  # beyond int64
        with contextlib.suppress(OverflowError):  # of negative ones
            array = np.array(numbers, np.uint64)
    return Part(array, present)


def _objects(values: list[Any]) -> Array:
    return np.fromiter(values, object, len(values))


def _common_dtype(parts: list[Part], *, is_whole: bool) -> np.dtype[Any]:
    kinds = {part.values.dtype.kind for part in parts}
    if kinds == {"b"} and is_whole:
        return np.dtype(bool)
    if not kinds or not kinds <= set("iuf"):
        return np.dtype(object)
    if not is_whole:
        return np.dtype(float)
    if kinds == {"i", "u"} and all(part.values.min() >= 0 for part in parts):
        return np.dtype(np.uint64)
    return np.result_type(*{part.values.dtype for part in parts})

"""The file format: one JSON object a line, numeric columns, numbers that survive.

A non-finite number is `null` in its field, so that every reader sees a numeric column; the record's
`_nonfinite` field says which it was. `encode` and `decode` are each other's inverse.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import orjson

NONFINITE = "_nonfinite"
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE


def encode(row: dict[str, Any]) -> bytes:
    """The line, newline included, for a row of host values (see `host.host_record`).

    Raises:
        TypeError: If a name is no string.
        ValueError: If a field is called `_nonfinite`, an integer has more than 64 bits, a string
            has lone surrogates, or the nesting is deeper than 254 levels (around a non-finite
            number, one level less).
    """
    if NONFINITE in row:
        raise ValueError(f"{NONFINITE!r} is the format's own field; give the metric another name")
    try:
        line = orjson.dumps(row, None, _OPTIONS)
    except orjson.JSONEncodeError:
        line = _encode_with_care(row)
    # orjson writes non-finite numbers as null: without a null there is none. (`in` takes twice as
    # long as `rfind`.)
    if line.rfind(b"null") >= 0 and (marks := _marks(row)):
        line = _encode_marked(row, marks)
    return line


def decode(line: bytes) -> dict[str, Any]:
    """The record that a line holds, non-finite numbers restored.

    Raises:
        ValueError: If the line is no JSON object.
    """
    record = orjson.loads(line)
    if type(record) is not dict:
        raise ValueError(f"a line holds one JSON object, not {line!r:.80}")
    _restore_marked(record)
    return record


def decode_lines(lines: bytes, count: int) -> list[dict[str, Any]] | None:
    """The records of many lines, in half the time of `decode` for each of them.

    Args:
        lines: The lines, each with its newline.
        count: How many there are.

    Returns:
        The records, non-finite numbers restored; None unless every line is a record.
    """
    try:
        records: list[Any] = orjson.loads(b"[" + lines.rstrip(b"\n").replace(b"\n", b",") + b"]")
        # One torn line and the next may make one object together.
        if len(records) != count or set(map(type, records)) != {dict}:
            return None
        if lines.rfind(NONFINITE.encode()) >= 0:  # `in` takes twice as long
            for record in records:
                _restore_marked(record)
    except ValueError:
        return None
    return records


def count_newlines(text: bytes) -> int:
    """How many newlines there are in a long text, in an eighth of the time of its `count`."""
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord("\n")))


def _encode_with_care(row: dict[str, Any]) -> bytes:
    """Encode what orjson refuses for its names' type alone; name the metric at fault otherwise."""
    for name, value in row.items():
        if not isinstance(name, str):
            raise TypeError(f"a metric's name is a string, not {name!r}") from None
        try:
            orjson.dumps({str(name): value}, None, _OPTIONS | orjson.OPT_NON_STR_KEYS)
        except orjson.JSONEncodeError as reason:
            raise ValueError(f"metric {name!r}: {reason}: {value!r:.80}") from None
        _check_names(value, name)
    return orjson.dumps(row, None, _OPTIONS | orjson.OPT_NON_STR_KEYS)


def _check_names(value: Any, path: str) -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            if not isinstance(name, str):
                raise TypeError(f"metric {path!r}: a name inside it is a string, not {name!r}")
            _check_names(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for inner in value:
            _check_names(inner, path)


def _encode_marked(row: dict[str, Any], marks: dict[str, Any]) -> bytes:
    options = _OPTIONS | orjson.OPT_NON_STR_KEYS
    try:
        return orjson.dumps({**row, NONFINITE: marks}, None, options)
    except orjson.JSONEncodeError:  # the marks lie one level deeper than what they mark
        for name, mark in marks.items():
            try:
                orjson.dumps({NONFINITE: {name: mark}}, None, options)
            except orjson.JSONEncodeError as reason:
                value = f"{row[name]!r:.80}"
                raise ValueError(
                    f"metric {name!r}: {reason} by a non-finite number in it: {value}"
                ) from None
        raise


def _marks(value: Any) -> Any:
    """Which numbers in `value` are not finite, in its own structure; None if all are."""
    if isinstance(value, float | np.floating):
        return None if math.isfinite(value) else str(float(value))
    if isinstance(value, dict):
        marks = {name: mark for name, inner in value.items() if (mark := _marks(inner)) is not None}
        return marks or None
    if isinstance(value, np.ndarray):
        value = value.tolist() if value.dtype.kind == "f" else ()
    if isinstance(value, list):
        row = [_marks(inner) for inner in value]
        return None if row.count(None) == len(row) else row
    return None


def _restore_marked(record: dict[str, Any]) -> None:
    if (marks := record.pop(NONFINITE, None)) is not None:
        try:
            _restore(record, marks)
        except RecursionError:
            raise ValueError("nested too deeply") from None


def _restore(values: Any, marks: Any) -> None:
    """Put the marked numbers back; marks that fit nothing (a file of other origin) do nothing."""
    places: Iterable[tuple[Any, Any]]
    if isinstance(values, dict) and isinstance(marks, dict):
        places = [(name, mark) for name, mark in marks.items() if name in values]
    elif isinstance(values, list) and isinstance(marks, list) and len(marks) == len(values):
        places = enumerate(marks)
    else:
        return
    for place, mark in places:
        if values[place] is None and mark in ("nan", "inf", "-inf"):
            values[place] = float(mark)
        else:
            _restore(values[place], mark)

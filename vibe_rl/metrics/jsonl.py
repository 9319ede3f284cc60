"""The file format: one JSON object a line, numeric columns, numbers that survive.

A non-finite number is `null` in its field, so that every reader sees a numeric column; the record's
`_nonfinite` field says which it was. `encode` and `decode` are each other's inverse.
"""

from __future__ import annotations

import heapq
import math
import operator
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from vibe_rl.metrics.append import process_paths
from vibe_rl.metrics.lines import StartTimes
from vibe_rl.run_dir import RunDir

NONFINITE = "_nonfinite"
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE


def encode(row: dict[str, Any]) -> bytes:
    """The line, newline included, for a row of host values (see `host.host_record`).

    Raises:
        TypeError: If a name is no string.
        ValueError: If a field is called `_nonfinite`, an integer has more than 64 bits, a string
            has lone surrogates, or the nesting is deeper than 254 levels.
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
        line = orjson.dumps({**row, NONFINITE: marks}, None, _OPTIONS | orjson.OPT_NON_STR_KEYS)
    return line


def decode(line: bytes) -> dict[str, Any]:
    """The record that a line holds, non-finite numbers restored.

    Raises:
        ValueError: If the line is no JSON object.
    """
    record = orjson.loads(line)
    if type(record) is not dict:
        raise ValueError(f"a line holds one JSON object, not {line!r:.80}")
    if (marks := record.pop(NONFINITE, None)) is not None:
        try:
            _restore(record, marks)
        except RecursionError:
            raise ValueError("nested too deeply") from None
    return record


def iter_metrics(
    path: str | os.PathLike[str] | RunDir, *, strict: bool = False
) -> Iterator[dict[str, Any]]:
    """Read a metrics file record by record, in the memory of one line.

    Where each process of a job has written a file of its own (`MetricsLogger(process="all")`), all
    are read, and their records come in the order of the times at which they were written.

    A last line without its newline is an append under way, or one that a crash cut short: it is
    passed over unless it is whole. Blank lines are passed over.

    Args:
        path: The metrics file, a run's directory, or a `RunDir`. A missing file has no records.
        strict: Raise at a corrupt line instead of passing over it with a warning.

    Yields:
        Each record as a plain dictionary, as it was written.

    Raises:
        ValueError: With `strict`, at a line that is no JSON object; names file and line.
    """
    path = metrics_path(path)
    processes = process_paths(path)
    if not processes:
        for _, record in _records(path, strict=strict):
            yield record
        return
    files = [_timed(each, strict=strict) for each in (path, *processes)]
    for _, record in heapq.merge(*files, key=operator.itemgetter(0)):
        yield record


def read_metrics(
    path: str | os.PathLike[str] | RunDir, *, strict: bool = False
) -> list[dict[str, Any]]:
    """Read all records of a metrics file.

    Args:
        path: The metrics file, a run's directory, or a `RunDir`.
        strict: Raise at a corrupt line instead of passing over it with a warning.

    Returns:
        The records in the order of the file, as plain dictionaries, NaN and infinities included;
        an empty list if there is no file. See `iter_metrics` for a job's files.

    Raises:
        ValueError: With `strict`, at a line that is no JSON object; names file and line.

    Example:
        >>> read_metrics("runs/none/logs/metrics.jsonl")
        []
    """
    return list(iter_metrics(path, strict=strict))


def metrics_path(path: str | os.PathLike[str] | RunDir) -> Path:
    """The metrics file that is meant by a file's path, a run's directory or a `RunDir`."""
    if isinstance(path, RunDir):
        return path.log_path()
    path = Path(path)
    return path / "logs" / "metrics.jsonl" if path.is_dir() else path


def _records(path: Path, *, strict: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    """A file's records, and the byte at which each one's line begins."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        byte = 0
        for number, line in enumerate(file, start=1):
            is_last = not line.endswith(b"\n")
            try:
                yield byte, decode(line)
            except ValueError as error:
                if not is_last and not line.isspace():
                    message = f"{path}, line {number}: not a record: {error}"
                    if strict:
                        raise ValueError(message) from None
                    warnings.warn(f"{message}; passed over", stacklevel=3)
            if is_last:
                return  # whatever an append under way has added since: it is the same line's rest
            byte += len(line)


def _timed(path: Path, *, strict: bool) -> Iterator[tuple[float, dict[str, Any]]]:
    """A file's records, and the time at which each was written, in seconds since the epoch."""
    if not path.exists():
        return
    starts = StartTimes(path)
    starts.refresh()
    time = 0.0
    for byte, record in _records(path, strict=strict):
        elapsed = record.get("wall_time")
        if isinstance(elapsed, float | int):
            time = starts.at(byte) + elapsed
        yield time, record


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

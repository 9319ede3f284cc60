"""Where a run's metrics first were NaN or infinite."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import orjson

from vibe_rl.metrics.jsonl import NONFINITE, decode
from vibe_rl.metrics.reading.blocks import metrics_files, read_blocks
from vibe_rl.run_dir import RunDir

NonFiniteValues = tuple[tuple[str, float], ...]
"""Names and values."""

_MARK = b'"%b":' % NONFINITE.encode()
_BLOCK = 1 << 20


@dataclass(frozen=True)
class NonFinite:
    """Where a metric first was not finite, and how often it was.

    Attributes:
        step: The record's step; None if it has none.
        count: In how many records the metric is not finite.
    """

    step: float | None
    count: int = 1


def first_nonfinite(run: str | os.PathLike[str] | RunDir) -> dict[str, NonFinite]:
    """Find the first non-finite value of each metric, through the whole file.

    Lines with finite numbers are not parsed, so this takes about a second for a gigabyte of them.

    Args:
        run: The metrics file, a run's directory, or a `RunDir`.

    Returns:
        By the metric's name, in order of appearance; that of one in a mapping is `mapping/name`.
    """
    first: dict[str, NonFinite] = {}
    counts: Counter[str] = Counter()
    for each in metrics_files(run):
        for text, _ in read_blocks(each, _BLOCK):
            for start, end, values in marked_lines(text):
                names = [name for name, _ in values]
                if new := [name for name in names if name not in first]:
                    try:
                        step = step_of(text[start:end])
                    except ValueError:
                        continue  # no record, but for its marks
                    first.update(dict.fromkeys(new, NonFinite(step)))
                counts.update(names)
    return {name: replace(each, count=counts[name]) for name, each in first.items()}


def marked_lines(lines: bytes) -> Iterator[tuple[int, int, NonFiniteValues]]:
    """Find the lines with non-finite numbers: where each begins and ends, and what they are.

    Cheap: what isn't marked is searched, not parsed; and few lines are marked in a new way.
    """
    end = 0
    while (place := lines.find(_MARK, end)) >= 0:
        start = lines.rfind(b"\n", 0, place) + 1
        end = lines.find(b"\n", place)
        if end < 0:
            return  # torn
        # The record's own marks come last; a mapping in it may have a field of that name.
        place = lines.rfind(_MARK, start, end) + len(_MARK)
        values = _marked_values(lines[place : end - 1])
        if values is None:
            values = _values_in(lines[start:end])
        if values:
            yield start, end, values


def step_of(line: bytes) -> float | None:
    """The step that a record names."""
    step = decode(line).get("step")
    return step if isinstance(step, int | float) else None


@functools.lru_cache(maxsize=1024)
def _marked_values(marks: bytes) -> NonFiniteValues | None:
    """The values of marks by their text; None if that is none."""
    try:
        return tuple(_flat(orjson.loads(marks), ""))
    except ValueError:
        return None


def _values_in(line: bytes) -> NonFiniteValues:
    try:
        decode(line)  # a record
        return tuple(_flat(orjson.loads(line).get(NONFINITE), ""))
    except ValueError:
        return ()


def _flat(marks: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(marks, dict):
        for key, inner in marks.items():
            yield from _flat(inner, f"{name}/{key}" if name else key)
    elif isinstance(marks, list):
        for inner in marks:
            for each in _flat(inner, name):
                yield each
                return  # the first of an array stands for it
    elif marks in ("nan", "inf", "-inf"):
        yield name, float(marks)

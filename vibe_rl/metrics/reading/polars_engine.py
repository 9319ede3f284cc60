"""Numeric columns by polars, which parses lines on all cores."""

from __future__ import annotations

import functools
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import orjson

from vibe_rl.metrics.jsonl import NONFINITE, decode
from vibe_rl.metrics.reading.parts import Part

# Of blocks parsed three at a time, these were the quickest on two cores: large enough for
# polars to share out, small enough for its memory to be used again.
BLOCK = 8 << 20

# The lines at a block's start that show a column's type.
_HEAD = 20


@functools.cache
def is_installed() -> bool:
    """Whether polars is there, of a version that refuses a value that isn't of the column's type.

    Older ones make it null.
    """
    try:
        return int(version("polars").split(".")[0]) >= 2
    except PackageNotFoundError:
        return False


def parse(block: bytes, wanted: Collection[str]) -> tuple[int, dict[str, Part]] | None:
    """Read columns of a block of lines.

    Args:
        block: Whole lines.
        wanted: The columns' names.

    Returns:
        How many records the block has, and a part for each column that any of them has. None if
        polars can't do it or would do it otherwise than we do: for corrupt lines, non-finite
        numbers, mappings, and what isn't numeric.
    """
    import polars as pl  # noqa: PLC0415 - optional

    # A block that holds any mapping of that name is refused, as no mapping is a truth value.
    types: dict[str, Any] = {NONFINITE: pl.Boolean}
    for name in wanted:
        kinds = _kinds(block, name)
        if not kinds <= {int, float}:
            return None
        types[name] = pl.Float64 if float in kinds else pl.Int64
    try:
        frame = pl.read_ndjson(block, schema=types)
    except pl.exceptions.PolarsError:
        return None
    parts = {}
    for name in wanted:
        column = frame[name]
        if column.null_count() == 0:
            parts[name] = Part(column.to_numpy(), None)
        elif column.null_count() < len(column):
            parts[name] = Part(column.fill_null(0).to_numpy(), column.is_not_null().to_numpy())
    return frame.height, parts


def _kinds(block: bytes, name: str) -> set[type]:
    """The types of a column's first values in a block; `dict` of what can't be known."""
    if "/" in name:
        return {dict}
    kinds = set[type]()
    key = orjson.dumps(name) + b":"
    place = 0
    for _ in range(_HEAD):
        place = block.find(key, place)
        if place < 0:
            break
        line = block[block.rfind(b"\n", 0, place) + 1 : block.find(b"\n", place)]
        try:
            kinds.add(type(decode(line).get(name)))
        except ValueError:
            return {dict}
        place += len(line) - line.find(key)  # to the next line
    return kinds - {type(None)}

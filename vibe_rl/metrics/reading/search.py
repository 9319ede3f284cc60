"""The first, or the last, record of a large file that has a field, found by the name's bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vibe_rl.metrics.jsonl import decode
from vibe_rl.metrics.reading.blocks import read_blocks
from vibe_rl.metrics.reading.fields import is_number, values_at

_BLOCK = 1 << 20


def find_records(
    path: Path, names: Iterable[str], *, numeric: bool = False, last: bool = False
) -> dict[str, dict[str, Any]]:
    """Find the first record that has each of these fields; what lacks their names isn't parsed.

    Reads from the file's start, or its end, until all are found: about a second for a gigabyte and
    each name that isn't there.

    Args:
        path: The file.
        names: The fields, by their names in `flat`. One in which another program has escaped a
            letter isn't found.
        numeric: Only where it is a number.
        last: Find the last records instead.

    Returns:
        By name, the records; without those that aren't found.
    """

    def has(line: bytes, name: str) -> bool:
        values = values_at(_record(line), name)
        return any(is_number(value) or not numeric for value in values)

    # However a/b is nested, its line has both of `"a` and `b"`.
    quoted = {name: json.dumps(name, ensure_ascii=False).encode(errors="replace") for name in names}
    missing = {name: text.split(b"/") for name, text in quoted.items()}
    found: dict[str, dict[str, Any]] = {}
    for text in _backwards(path) if last else (block.text for block in read_blocks(path, _BLOCK)):
        if not missing:
            break
        for name, parts in list(missing.items()):
            if all(text.find(part) >= 0 for part in parts):
                lines = text.split(b"\n")
                for line in reversed(lines) if last else lines:
                    if all(part in line for part in parts) and has(line, name):
                        found[name] = _record(line)
                        del missing[name]
                        break
    return found


def _record(line: bytes) -> dict[str, Any]:
    try:
        return decode(line)
    except ValueError:
        return {}


def _backwards(path: Path) -> Iterator[bytes]:
    """A file's lines in blocks, the last block first."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        start, size, rest = file.seek(0, os.SEEK_END), _BLOCK, b""
        while start:
            step = min(size, start)
            start -= step
            file.seek(start)
            text = file.read(step) + rest
            # The line in which the block begins is read with the block before.
            first = text.find(b"\n") + 1 if start else 0
            if start and not first:  # a line longer than a block
                rest, size = text, size * 2
                continue
            rest, text = text[:first], text[first:]
            yield text

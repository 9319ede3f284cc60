"""A few records of a file of any size: the first, the last, or a sample spread over all of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO

import numpy as np

from vibe_rl.metrics.reading.blocks import BLOCK, blocks_of, metrics_path, read_blocks, records_of
from vibe_rl.run_dir import RunDir

FileId = tuple[int, int]


@dataclass(frozen=True)
class Sample:
    """Records of a file, in its order.

    Attributes:
        records: The records; non-finite numbers are restored.
        end: The byte at which the lines end that this sample knows of.
        fraction: How much of the bytes that were to be sampled was read; 1.0 is all.
        anew: Whether the file is another one than before, or was cut short, so that this sample
            begins at its start.
        file_id: What tells this file from another of its name.
    """

    records: list[dict[str, Any]]
    end: int = 0
    fraction: float = 1.0
    anew: bool = False
    file_id: FileId | None = None


def head_records(run: str | os.PathLike[str] | RunDir, n: int) -> list[dict[str, Any]]:
    """Give the first `n` records of a metrics file; reads no more than it needs."""
    blocks = read_blocks(metrics_path(run))
    return list(islice((record for text, _ in blocks for record in records_of(text)), n))


def tail_records(run: str | os.PathLike[str] | RunDir, n: int) -> list[dict[str, Any]]:
    """Give the last `n` records of a metrics file, the oldest first; reads it backwards."""
    try:
        file = metrics_path(run).open("rb", buffering=0)
    except FileNotFoundError:
        return []
    with file:
        start = file.seek(0, os.SEEK_END)
        size = BLOCK
        text = b""
        records: list[dict[str, Any]] = []
        while start > 0 and len(records) < n:
            step = min(size, start)
            start -= step
            file.seek(start)
            text = file.read(step) + text
            first = 0 if start == 0 else text.find(b"\n") + 1
            if first or start == 0:
                records = records_of(text[first:]) + records
                text = text[:first]
            size = max(BLOCK, len(text))  # a long line is read in steps that double
        return records[max(len(records) - n, 0) :]


def sample_records(
    run: str | os.PathLike[str] | RunDir,
    most_bytes: int | None = None,
    *,
    start: int = 0,
    file_id: FileId | None = None,
) -> Sample:
    """Read a metrics file, or, if it is large, blocks of lines spread evenly over it.

    Args:
        run: The metrics file, a run's directory, or a `RunDir`.
        most_bytes: About how much to read. None reads all.
        start: The byte to begin at: the `end` of the sample before.
        file_id: The `file_id` of the sample before.

    Returns:
        The sample; the file's first and last lines after `start` are in it. A torn last line is
        left for the next one.
    """
    try:
        file = metrics_path(run).open("rb", buffering=0)
    except FileNotFoundError:
        return Sample([], anew=start > 0)
    with file:
        status = os.fstat(file.fileno())
        this = (status.st_dev, status.st_ino)
        anew = status.st_size < start or file_id not in (None, this)
        start = end = 0 if anew else start
        size = status.st_size - start
        if most_bytes is None or size <= most_bytes:
            blocks = [text for text, _ in blocks_of(file, BLOCK, start)]
            if blocks and not blocks[-1].endswith(b"\n"):
                blocks.pop()
            end += sum(map(len, blocks))
            fraction = 1.0
        else:
            blocks, end = _spread(file, start, status.st_size, most_bytes)
            fraction = sum(map(len, blocks)) / size
        records = [record for text in blocks for record in records_of(text)]
    return Sample(records, end, fraction, anew, this)


def _spread(
    file: BinaryIO | Any, start: int, stop: int, most_bytes: int
) -> tuple[list[bytes], int]:
    """Blocks of whole lines from places spread over a part of a file, and where the last ends."""
    step = min(BLOCK, max(most_bytes // 16, 1024))
    *places, last = np.linspace(start, stop - step, max(most_bytes // step, 2)).astype(int).tolist()
    blocks: list[bytes] = []
    end = start

    def take(place: int, size: int) -> bool:
        nonlocal end
        file.seek(place)
        text = file.read(size)
        first = 0 if place == end else text.find(b"\n") + 1
        whole = text[first : text.rfind(b"\n") + 1]
        if whole:
            blocks.append(whole)
            end = place + first + len(whole)
        return bool(whole)

    for place in places:
        size = step
        while not take(max(place, end), size) and place + size < stop:
            size *= 2  # it lies within a long line
    place = max(last, end)
    while not take(place, stop - place) and place > end:
        place = max(stop - 2 * (stop - place), end)
    return blocks, end

"""A few records of a file of any size: the first, the last, or a sample spread over all of it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from vibe_rl.metrics.jsonl import count_newlines
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
        corrupt: How many of the lines that were read are no records.
        anew: Whether the file is another one than before, or was cut short, so that this sample
            begins at its start.
        file_id: What tells this file from another of its name.
    """

    records: list[dict[str, Any]]
    end: int = 0
    fraction: float = 1.0
    corrupt: int = 0
    anew: bool = False
    file_id: FileId | None = None


def head_records(run: str | os.PathLike[str] | RunDir, n: int) -> list[dict[str, Any]]:
    """Give the first `n` records of a metrics file; reads no more than it needs."""
    blocks = read_blocks(metrics_path(run))
    return list(islice((record for text, _ in blocks for record in records_of(text)), n))


def tail_records(run: str | os.PathLike[str] | RunDir, n: int) -> Sample:
    """Give the last `n` records of a metrics file; looks for them from its end."""
    path = metrics_path(run)
    size, span = path.stat().st_size if path.exists() else 0, BLOCK
    while True:
        # This may begin in the middle of a line, and what is left of one is no record.
        start = max(size - span, 0)
        sample = sample_records(path, start=start)
        if len(sample.records) >= n or start == 0 or sample.anew:
            return replace(sample, records=sample.records[max(len(sample.records) - n, 0) :])
        span *= 4


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
        records: list[dict[str, Any]] = []
        corrupt = 0
        for text in blocks:
            found = records_of(text)
            if len(found) != count_newlines(text):
                corrupt += sum(1 for line in text.split(b"\n") if line.strip()) - len(found)
            records += found
    return Sample(records, end, fraction, corrupt, anew, this)


def most_of_each(files: Iterable[Path], most_bytes: int | None) -> int | None:
    """How much of each file to read for `most_bytes` of all: small ones whole, of others as much.

    Args:
        files: The files; what isn't there is of no size.
        most_bytes: How much to read of all; None is all.
    """
    if most_bytes is None:
        return None
    sizes = sorted(file.stat().st_size for file in files if file.is_file())
    for nth, size in enumerate(sizes):
        share = most_bytes // (len(sizes) - nth)
        if size > share:
            return share
        most_bytes -= size
    return None


def _spread(
    file: BinaryIO | Any, start: int, stop: int, most_bytes: int
) -> tuple[list[bytes], int]:
    """Blocks of whole lines from places spread over a part of a file, and where the last ends."""
    step = min(BLOCK, max(most_bytes // 16, 512))
    gaps = max(most_bytes // step, 2) - 1
    *places, last = (start + (stop - step - start) * nth // gaps for nth in range(gaps + 1))
    blocks: list[bytes] = []
    end = start

    def take(place: int, size: int) -> bool:
        nonlocal end
        file.seek(place)
        text = file.read(size)
        first = 0 if place == end else text.find(b"\n") + 1
        whole = text[first : text.rfind(b"\n") + 1]
        if whole:
            if blocks and len(blocks[-1]) + len(whole) <= BLOCK:
                blocks[-1] += whole  # to parse a few lines at a time takes longer
            else:
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

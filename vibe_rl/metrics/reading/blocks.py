"""A metrics file as blocks of whole lines, and the records in a block."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from vibe_rl.metrics.append import process_paths
from vibe_rl.metrics.jsonl import count_newlines, decode, decode_lines
from vibe_rl.run_dir import RunDir

# As much as stays in the processor's cache while its lines are parsed.
BLOCK = 1 << 16


class TextBlock(NamedTuple):
    """Whole lines of a file; only the file's last one may lack its newline.

    Attributes:
        text: The lines.
        byte: Where the first of them begins.
    """

    text: bytes
    byte: int


def metrics_path(run: str | os.PathLike[str] | RunDir) -> Path:
    """The metrics file that is meant by a file's path, a run's directory or a `RunDir`."""
    if isinstance(run, RunDir):
        return run.log_path()
    path = Path(run)
    return path / "logs" / "metrics.jsonl" if path.is_dir() else path


def metrics_files(run: str | os.PathLike[str] | RunDir) -> list[Path]:
    """A run's metrics file, and those of a job's processes; the first may not be there."""
    path = metrics_path(run)
    return [path, *process_paths(path)]


def run_root(path: Path) -> Path | None:
    """The directory of the run whose metrics file this is; None if it lies in none."""
    logs = path.absolute().parent
    return logs.parent if logs.name == "logs" else None


def read_blocks(path: Path, size: int = BLOCK) -> Iterator[TextBlock]:
    """Read a file, which may not exist, in blocks of about `size` bytes."""
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        return
    with file:
        yield from blocks_of(file, size)


def blocks_of(file: BinaryIO | Any, size: int, start: int = 0) -> Iterator[TextBlock]:
    """Read an open file from a byte on, at which a line begins, to what is its end now."""
    while data := _pread(file, _up_to_line_end(file, size, start), start):
        end = data.rfind(b"\n") + 1
        if end:
            yield TextBlock(data[:end], start)
            start += end
        elif len(data) < size:
            yield TextBlock(data, start)
            return
        else:
            size *= 2  # a line longer than a block


def records_of(block: bytes) -> list[dict[str, Any]]:
    """The records in a block; what is no record is passed over in silence."""
    records = decode_lines(block, count_newlines(block))
    if records is None:
        records = [record for _, _, record in records_with_places(block, None, strict=False)]
    return records


def records_with_places(
    block: bytes, where: Path | None, *, strict: bool, byte: int = 0, line: int = 1
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """The records in a block, one line after the other: each with its byte and its line's number.

    Args:
        block: Whole lines; the last one may lack its newline, and is passed over if it is torn.
        where: The file, for messages; None passes over what is no record without a warning.
        strict: Raise instead of warning.
        byte: Where the block begins.
        line: The number of the block's first line.

    Raises:
        ValueError: With `strict`, at a line that is no record.
    """
    *lines, last = block.split(b"\n")
    for number, text in enumerate((*lines, last), start=line):
        try:
            yield byte, number, decode(text)
        except ValueError as error:
            is_torn = number == line + len(lines)
            if not is_torn and text.strip() and (where or strict):
                message = f"{where}, line {number}: not a record: {error}"
                if strict:
                    raise ValueError(message) from None
                warnings.warn(f"{message}; passed over", stacklevel=2)
        byte += len(text) + 1


def _up_to_line_end(file: BinaryIO | Any, size: int, start: int) -> int:
    """How much of a large block to read for no line to be cut off it, which takes a copy."""
    if size <= BLOCK:
        return size
    last = _pread(file, BLOCK, start + size - BLOCK)
    return size - BLOCK + (last.rfind(b"\n") + 1 or len(last))


def _pread(file: BinaryIO | Any, size: int, start: int) -> bytes:
    file.seek(start)
    data: bytes = file.read(size)
    return data

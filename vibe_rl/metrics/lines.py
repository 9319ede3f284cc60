"""Reading a metrics file that others append to: its lines from a position on, and their times."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vibe_rl.metrics.append import iter_writers, writers_path
from vibe_rl.metrics.jsonl import count_newlines, decode

_log = logging.getLogger("vibe_rl")

_BLOCK = 1 << 16
# How many bytes of lines are handed out at a time.
_SOME = 2048
_FIRST_LINE_BYTES = 4096
# A `wall_time` from here on is no time since a logger's start, which would be 31 years ago.
_EPOCH_S = 1e9
# How exact the time of a file's last change is, on file systems and machines of all kinds.
_MTIME_S = 2.0


class Position(NamedTuple):
    """A place between two lines: how many bytes, and how many lines, lie before it."""

    byte: int
    ordinal: int


class Line(NamedTuple):
    """A whole line without its newline, and where it begins."""

    text: bytes
    byte: int
    ordinal: int


class Lines:
    """The whole lines of a growing file, one after the other.

    A file that is cut short or written anew meanwhile is noticed by `refresh()`: what was there
    before is not read again, and what a new file holds is read from its start. A file that another
    one takes the place of is read to its end; then `move_on()` goes to the other.

    Args:
        path: The file; it exists already.
        position: Where to begin.

    Attributes:
        byte: Where the next line begins.
        ordinal: How many lines lie before that.
    """

    def __init__(self, path: Path, position: Position) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._file_id = self.file_id()
        self.seek(position)

    @property
    def position(self) -> Position:
        """`byte` and `ordinal`."""
        return Position(self.byte, self.ordinal)

    @property
    def size(self) -> int:
        """The file's size now, in bytes."""
        return os.fstat(self._fd).st_size

    def fileno(self) -> int:
        """The file's descriptor."""
        return self._fd

    def file_id(self) -> str | None:
        """What tells this file from another of its name: a digest of its first line, if whole."""
        first, newline, _ = os.pread(self._fd, _FIRST_LINE_BYTES, 0).partition(b"\n")
        if not newline and len(first) < _FIRST_LINE_BYTES:
            return None
        return hashlib.blake2b(first, digest_size=8).hexdigest()

    def seek(self, position: Position) -> None:
        """Go on at another position."""
        self.byte, self.ordinal = position
        self._end = self.byte  # where the lines that were read end
        self._read: list[bytes] = []
        self._next = 0
        self._some = 1  # how many lines make about so many bytes

    def refresh(self) -> int:
        """Look at the file anew; gives its size."""
        size, file_id = self.size, self.file_id()
        if self._file_id not in (None, file_id):
            _log.warning("%s was written anew: going on at its start", self._path)
            self.seek(Position(0, 0))
        elif size < self.byte:
            _log.warning("%s was cut short: going on at its new end", self._path)
            self.seek(self.end())
        self._file_id = file_id
        return size

    def move_on(self) -> bool:
        """Go to the file that has taken this one's place, once a logger appends there.

        Returns:
            Whether to go on reading: there, or here, where lines have come before the logger went.
        """
        try:
            other = self._path.stat()
        except OSError:
            return False
        if os.path.samestat(other, os.fstat(self._fd)):
            return False
        start = None
        for note in reversed([*_openings(self._path)]):
            if note.get("inode") != other.st_ino:
                break
            start = Position(note["byte"], note["ordinal"])
        if start is None:
            return False
        if self.byte < self.size and self.peek():
            return True
        before = self._fd
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # that one was moved as well
            return False
        os.close(before)
        self._file_id = self.file_id()
        self.seek(start)
        return True

    def end(self, before: int = sys.maxsize) -> Position:
        """Where the file's last whole line ends, of those that end before a byte."""
        byte = ordinal = 0
        offset = 0
        while block := os.pread(self._fd, min(1 << 20, before - offset), offset):
            if lines := count_newlines(block):
                ordinal += lines
                byte = offset + block.rfind(b"\n") + 1
            offset += len(block)
        return Position(byte, ordinal)

    def is_boundary(self, byte: int) -> bool:
        """Whether a line can begin at this byte."""
        return byte == 0 or os.pread(self._fd, 1, byte - 1) == b"\n"

    def peek(self) -> Line | None:
        """The next line; None if there is no whole one."""
        if self._next == len(self._read) and not self._read_on():
            return None
        return Line(self._read[self._next], self.byte, self.ordinal)

    def peek_some(self) -> list[bytes]:
        """The texts of the next few lines; none if there is no whole one."""
        if self._next == len(self._read) and not self._read_on():
            return []
        return self._read[self._next : self._next + self._some]

    def after(self, line: Line) -> Line | None:
        """The line that follows one that is still ahead."""
        ahead = self._next + line.ordinal - self.ordinal + 1
        if ahead == len(self._read):
            ahead -= self._next
            if not self._read_on():
                return None
        return Line(self._read[ahead], line.byte + len(line.text) + 1, line.ordinal + 1)

    def pass_over(self, line: Line) -> None:
        """Go on after a line, which is the next one or further ahead."""
        self._next += line.ordinal - self.ordinal + 1
        self.byte = line.byte + len(line.text) + 1
        self.ordinal = line.ordinal + 1

    def pass_one(self, text: bytes) -> None:
        """Go on after the next line, which has this text."""
        self._next += 1
        self.byte += len(text) + 1
        self.ordinal += 1

    def close(self) -> None:
        """Let go of the file. Doing so again does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _read_on(self) -> bool:
        size = _BLOCK
        while not (whole := (block := os.pread(self._fd, size, self._end)).rfind(b"\n") + 1):
            if len(block) < size:
                return False  # an append under way
            size *= 2
        # Looked at after the block was read, for it may be read while the file is written anew.
        if self._file_id not in (None, self.file_id()):
            return False  # until `refresh()`
        lines = block[: whole - 1].split(b"\n")
        self._some = max(len(lines) * _SOME // whole, 1)
        self._read = self._read[self._next :] + lines
        self._next = 0
        self._end += whole
        return True


def count_lines(path: Path, byte: int = 0) -> int:
    """The lines that a file holds after this byte; none if there is no such file.

    Raises:
        OSError: If it can't be read.
    """
    count = 0
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(byte)
            while block := file.read(1 << 20):
                count += count_newlines(block)
    except FileNotFoundError:
        pass
    return count


class StartTimes:
    """When the records of a metrics file were written, in seconds since the epoch.

    A record's `wall_time` counts from the start of the logger that was opened last before it. If
    that is later than the file's last change, the record is of a logger that goes on beside that
    one, or the user's own count of something else: then it is taken to be as old as the change.

    A `wall_time` of a thousand million seconds or more is itself one since the epoch. Where no
    logger has left a note (its file was not copied along), the last record is taken to be as old as
    the file's last change.

    Args:
        path: The metrics file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._starts: list[tuple[int, float]] = []  # newest first
        self._changed = path.stat().st_mtime
        self._unknown: float | None = None  # the start, where no logger has left a note

    def refresh(self) -> None:
        """See which loggers have been opened since, and when the file was changed last."""
        try:
            self._changed = self._path.stat().st_mtime
            stat = writers_path(self._path).stat()
        except OSError:
            return
        if self._seen != (stat.st_mtime_ns, stat.st_size):
            self._starts = [(note["byte"], note["time"]) for note in _openings(self._path)][::-1]
            self._seen = (stat.st_mtime_ns, stat.st_size)

    def of(self, byte: int, wall_time: Any) -> float:
        """When the record at this byte was written, which may have anything as its `wall_time`.

        Raises:
            OSError: If the file can't be read.
        """
        elapsed = _seconds(wall_time)
        time = elapsed if elapsed >= _EPOCH_S else self.at(byte) + elapsed
        return time if time <= self._changed + _MTIME_S else self._changed

    def at(self, byte: int) -> float:
        """The start of the logger that wrote the line at this byte.

        Raises:
            OSError: If the file can't be read.
        """
        for first, time in self._starts:
            if first <= byte:
                return time
        if self._unknown is None:
            self._unknown = self._changed - _last_wall_time(self._path)
        return self._unknown


def _seconds(wall_time: Any) -> float:
    return wall_time if type(wall_time) in (float, int) and abs(wall_time) < 2**63 else 0.0


def _last_wall_time(path: Path) -> float:
    with path.open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - _BLOCK, 0))
        lines = file.read().split(b"\n")
    for line in reversed(lines):
        with contextlib.suppress(ValueError):
            elapsed = _seconds(decode(line).get("wall_time"))
            return elapsed if elapsed < _EPOCH_S else 0.0
    return 0.0


def _openings(path: Path) -> Iterator[dict[str, Any]]:
    return (note for note in iter_writers(path) if note["event"] == "open")

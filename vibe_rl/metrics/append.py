"""The metrics file, open for appending: locks, repair, and the record of who wrote it."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from vibe_rl.metrics.locks import has_name, open_locked, release, share

_log = logging.getLogger("vibe_rl")

# How long the file stays as it is before a torn last line is taken to be nobody's any more.
_APPEND_S = 0.01
_BLOCK = 1 << 20
_MOST_TIME = 1e11  # in the year 5138


class MetricsFile:
    """A metrics file that whole lines are appended to, by this process and perhaps by others.

    Opening it takes a shared advisory lock that lasts until `close()`. If nobody else has the file
    open, a torn last line (a crash, a full disk) is cut off and kept beside the file. Otherwise,
    nothing is cut: what looks torn may be an append under way.

    Args:
        path: The file; it and its directories are made if missing.

    Attributes:
        path: The file.
        start_time: When it was opened, in seconds since the epoch.
        start_byte: Its size when it was opened: where this logger's lines begin.
        start_ordinal: The number of lines it held then.

    Raises:
        OSError: If the path is a directory or can't be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_child = self._is_locked = False
        self._writers = writers_path(path)
        self._id = uuid.uuid4().hex[:12]
        self.start_time = time.time()
        self._fd, self.start_byte, self.start_ordinal = self._open()
        self._end = self.start_byte  # where our last append ended; -1 if that isn't known
        self._half = 0  # bytes of the next line that are there: all that a full disk took of it

    def append(self, lines: memoryview) -> int:
        """Append the first of these lines; says how many bytes they have.

        If the disk takes a part of a line only, the next call, which begins with that line, appends
        the rest. But another program may have appended meanwhile, or have moved, deleted, replaced
        or cut the file: then this goes on, with the whole line, at the new end, or in the file that
        has the name now, made anew if there is none.

        Raises:
            OSError: If nothing could be written.
        """
        size = os.fstat(self._fd).st_size
        if not has_name(self._fd, self.path):
            before, (self._fd, size, _) = self._fd, self._open()
            self._end, self._half = -1, 0
            _log.warning(
                "%s was moved, replaced or deleted: going on in the file of that name", self.path
            )
            os.close(before)
        elif size != self._end:
            if size < self._end:
                _log.warning("%s was cut short: going on at its new end", self.path)
            if not self._lacks_only_its_newline(lines):
                self._half = 0
            size = _end_torn_line(self._fd)
        if not self._is_locked:  # by an opener that another one kept from it for long
            self._is_locked = share(self._fd)
        written = os.write(self._fd, lines[self._half :])
        # Too low if another process has just appended too: then the next call has a look.
        self._end = size + written
        there = self._half + written
        whole = there if there == len(lines) else bytes(lines[:there]).rfind(b"\n") + 1
        self._half = there - whole
        return whole

    def _lacks_only_its_newline(self, lines: memoryview) -> bool:
        """Whether the line that is there in part has been ended by somebody else: it is whole."""
        line = bytes(lines[: self._half + 1])
        start = self._end - self._half
        return line.endswith(b"\n") and os.pread(self._fd, len(line), start) == line

    def close(self, how: str) -> None:
        """Give the lock back and note `how` the logger ended. Doing so again does nothing."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        end = os.fstat(fd).st_size
        os.close(fd)
        if self._is_child:
            return
        try:
            self._note("close", time=time.time(), how=how, byte=end)
        except OSError as error:
            _log.warning("%s: can't note that the logger was closed: %s", self._writers, error)

    def after_fork(self) -> None:
        """In a forked child: append as before, but leave the lock and the notes to the parent."""
        self._is_child = True
        self._end, self._half = -1, 0

    def _open(self) -> tuple[int, int, int]:
        """Open the file: gives its descriptor, and how many bytes and lines it holds."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd, how = open_locked(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            if how == fcntl.LOCK_EX:
                repair(fd, self.path)
            # A torn line of a writer that is still alive is ended by our newline, or, if it was
            # an append under way, followed by a blank line, which readers pass over.
            if _last_byte(fd) not in (b"", b"\n"):
                os.write(fd, b"\n")
            self._is_locked = how != fcntl.LOCK_UN and share(fd)
            file = os.fstat(fd)
            lines = next_ordinal(fd, file.st_size, self.path)
            self._note(
                "open",
                time=self.start_time,
                host=socket.gethostname(),
                pid=os.getpid(),
                inode=file.st_ino,
                byte=file.st_size,
                ordinal=lines,
            )
        except BaseException:
            release(fd)
            raise
        return fd, file.st_size, lines

    def _note(self, event: str, **fields: Any) -> None:
        line = orjson.dumps(
            {"event": event, "id": self._id, **fields}, None, orjson.OPT_APPEND_NEWLINE
        )
        fd = os.open(self._writers, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            if _last_byte(fd) not in (b"", b"\n"):
                line = b"\n" + line
            os.write(fd, line)
        finally:
            os.close(fd)


class NoFile:
    """Stands in for a `MetricsFile` on a process that doesn't log."""

    start_byte = start_ordinal = 0

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, lines: memoryview) -> int:
        """Take them, and do nothing with them."""
        return len(lines)

    def close(self, how: str) -> None:
        """Do nothing."""

    def after_fork(self) -> None:
        """Do nothing."""


def process_path(path: Path, process: int) -> Path:
    """The file of one of a job's processes: `metrics.p3.jsonl` beside `metrics.jsonl`."""
    return path.with_name(f"{path.name.removesuffix('.jsonl')}.p{process}.jsonl")


def process_paths(path: Path) -> list[Path]:
    """The files of a job's processes that are there, in the processes' order."""
    stem = re.escape(path.name.removesuffix(".jsonl"))
    try:
        names = os.listdir(path.parent)  # noqa: PTH208 - a glob is slow, of thousands of runs
    except OSError:
        return []
    found = {
        int(match[1]): path.with_name(name)
        for name in names
        if (match := re.fullmatch(rf"{stem}\.p([0-9]+)\.jsonl", name))
    }
    return [found[process] for process in sorted(found)]


def writers_path(path: Path) -> Path:
    """The file beside a metrics file that says who wrote it: `metrics.writers.jsonl`."""
    return path.with_name(f"{path.name.removesuffix('.jsonl')}.writers.jsonl")


def read_writers(path: Path) -> list[dict[str, Any]]:
    """The notes of a metrics file's loggers, in order; what is no such note is passed over."""
    return list(iter_writers(path))


def iter_writers(path: Path) -> Iterator[dict[str, Any]]:
    """Go through these notes: a file that thousands of loggers have opened has many."""
    with contextlib.suppress(FileNotFoundError), writers_path(path).open("rb") as file:
        for line in file:
            with contextlib.suppress(orjson.JSONDecodeError):
                note = orjson.loads(line)
                if _is_note(note):
                    yield note


def _is_note(note: Any) -> bool:
    """Whether it is a note as `MetricsFile` writes it; the file may hold anything."""
    if not isinstance(note, dict) or note.get("event") not in ("open", "close"):
        return False
    counts = ("pid", "byte", "ordinal") if note["event"] == "open" else ("byte",)
    return is_time(note.get("time")) and all(
        type(count) is int and 0 <= count < 2**63
        for count in (*map(note.get, counts), note.get("superseded", 0))
    )


def is_time(value: Any) -> bool:
    """Whether it is a time in seconds since the epoch that a calendar has a date for."""
    return type(value) in (int, float) and 0 <= value < _MOST_TIME


def next_ordinal(fd: int, size: int, path: Path) -> int:
    """The lines of a file and those that made way, counted from the last logger's start."""
    byte = ordinal = 0
    for note in iter_writers(path):
        if note["event"] == "open" and note["byte"] <= size:
            byte, ordinal = note["byte"], note["ordinal"] + note.get("superseded", 0)
    while byte < size:
        block = os.pread(fd, min(_BLOCK, size - byte), byte)
        if not block:
            break
        ordinal += block.count(b"\n")
        byte += len(block)
    return ordinal


def _end_torn_line(fd: int) -> int:
    """End a line that lacks its newline, after a cut or a death; gives the file's size then."""
    size = -1
    while _last_byte(fd) not in (b"", b"\n"):
        if size == (size := os.fstat(fd).st_size):
            return size + os.write(fd, b"\n")
        time.sleep(_APPEND_S)  # another process's append under way looks torn too
    return os.fstat(fd).st_size


def _last_byte(fd: int) -> bytes:
    return os.pread(fd, 1, max(os.fstat(fd).st_size - 1, 0))


def repair(fd: int, path: Path) -> None:
    """Cut a torn last line off, and keep it beside the file; a whole one only lacks its newline."""
    size = start = os.fstat(fd).st_size
    newline = -1
    while start > 0 and newline < 0:
        step = min(_BLOCK, start)
        start -= step
        newline = os.pread(fd, step, start).rfind(b"\n")
    torn = os.pread(fd, size, start + newline + 1)
    if not torn or _is_whole(torn):
        return
    kept = path.with_name(f"{path.name}.torn")
    with kept.open("ab") as file:
        file.write(torn + b"\n")
    os.ftruncate(fd, size - len(torn))
    _log.warning(
        "%s: the last line was torn (a crash, a full disk); its %d bytes were moved to %s",
        path,
        len(torn),
        kept.name,
    )


def _is_whole(line: bytes) -> bool:
    try:
        return isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return False

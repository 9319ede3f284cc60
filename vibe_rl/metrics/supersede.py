"""Going back to a step: what a metrics file holds past it is moved to a file beside it.

A run that goes on from a checkpoint logs anew what the killed attempt had logged after it; so that
the file keeps one history, the records of that attempt make way.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import orjson

from vibe_rl.atomic import write_atomically
from vibe_rl.metrics.alarms import alarms_superseded, sweep_alarms
from vibe_rl.metrics.append import MetricsFile, read_writers, repair, writers_path
from vibe_rl.metrics.feed.cursor import CursorInUseError, cursors_moved
from vibe_rl.metrics.lines import Lines, Position, count_lines
from vibe_rl.metrics.locks import open_locked, release
from vibe_rl.metrics.reading.state import file_state

_BLOCK = 1 << 20

_log = logging.getLogger("vibe_rl")


class _Cut(NamedTuple):
    """Neighbouring lines that make way: where they begin and end in the file."""

    start: int
    end: int


def supersede(path: Path, step: int) -> None:
    """Move a metrics file's records past a step to `metrics.superseded.jsonl` beside it.

    A record without a step shares the fate of the one before it. The file is replaced as a whole,
    under its exclusive lock. Backends go on at the end of what is kept; those that have a method
    `restart` are told the step. The ordinals of what has made way are not used again, and what was
    warned of it is moved too.

    Args:
        path: The metrics file; one that is missing or holds nothing past the step stays as it is.
        step: The last step whose records stay.

    Raises:
        OSError: If there is something to move, but another logger has the file open, or a feed
            delivers from it; or if the disk refuses.
    """
    with ExitStack() as stack:
        try:
            fd, how = open_locked(path, os.O_RDWR)
        except FileNotFoundError:
            return
        stack.callback(release, fd)
        alone = how == fcntl.LOCK_EX
        if alone:
            repair(fd, path)
            _end_line(fd)
        cuts = list(_cuts(path, step))
        if not cuts:
            if alone:
                sweep_alarms(path)
            return
        if not alone:
            raise _busy(path, step, _why_locked(fd))
        try:
            _replace(path, fd, cuts, step)
        except CursorInUseError as error:
            why = f"a feed delivers from the file ({error}); end it first"
            raise _busy(path, step, why) from error


def retire(path: Path, step: int) -> None:
    """Move the records past a step out of a file that nobody writes any more.

    If its last logger was killed, that counts no more: the run goes on elsewhere.

    Args:
        path: The metrics file.
        step: The step.

    Raises:
        OSError: As `supersede` does.
    """
    supersede(path, step)
    if file_state(path).state == "crashed":
        MetricsFile(path).close("closed")


def superseded_path(path: Path) -> Path:
    """The file that keeps what has made way: `metrics.superseded.jsonl` beside the metrics file."""
    return path.with_name(f"{path.name.removesuffix('.jsonl')}.superseded.jsonl")


def _cuts(path: Path, step: int) -> Iterator[_Cut]:
    start = byte = 0
    is_past = False
    with path.open("rb") as file:
        for line in file:
            its = _step(line)
            if its is not None and (its > step) != is_past:
                if is_past:
                    yield _Cut(start, byte)
                is_past, start = its > step, byte
            byte += len(line)
    if is_past:
        yield _Cut(start, byte)


def _step(line: bytes) -> float | None:
    try:
        step = orjson.loads(line)["step"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return step if type(step) in (int, float) else None


def _replace(path: Path, fd: int, cuts: list[_Cut], step: int) -> None:
    """Put a file without the cuts in the metrics file's place.

    Killed at any moment, nothing is lost: `metrics.superseded.jsonl` and its alarms may have some
    twice, and the notes may name places in the file as it would have been, so that times are wrong.
    """
    size = os.fstat(fd).st_size
    target = path.resolve()  # a link stays one
    kept = target.with_name(f".{path.name}.tmp")
    kept.unlink(missing_ok=True)  # of an attempt that was killed
    try:
        with kept.open("xb") as new, superseded_path(path).open("ab") as old:
            os.fchmod(new.fileno(), stat.S_IMODE(os.fstat(fd).st_mode))
            end = 0
            for cut in [*cuts, _Cut(size, size)]:
                _copy(fd, end, cut.start, new)
                _copy(fd, cut.start, cut.end, old)
                end = cut.end
            for each in (new, old):
                each.flush()
                os.fsync(each.fileno())
        moved = partial(_moved, cuts=cuts)
        with (
            cursors_moved(path, kept, moved, _file_id(kept), restart=step),
            alarms_superseded(path, kept, superseded_path(path), step),
        ):
            _move_notes(path, kept, cuts)
            kept.replace(target)
    except BaseException:
        kept.unlink(missing_ok=True)
        raise
    _log.info(
        "%s: going back to step %d; the records past it were moved to %s",
        path,
        step,
        superseded_path(path).name,
    )


def _end_line(fd: int) -> None:
    size = os.fstat(fd).st_size
    if size and os.pread(fd, 1, size - 1) != b"\n":
        os.pwrite(fd, b"\n", size)


def _why_locked(fd: int) -> str:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            return (
                f"files can't be locked here ({error.strerror}), so that another logger may have "
                "it open; omit resume_step, or move the file to a disk with locks"
            )
    return "another logger has the file open; end it first"


def _busy(path: Path, step: int, why: str) -> OSError:
    return OSError(errno.EBUSY, f"the records past step {step} can't make way: {why}", str(path))


def _file_id(path: Path) -> str | None:
    with closing(Lines(path, Position(0, 0))) as lines:
        return lines.file_id()


def _copy(source: int, start: int, end: int, target: IO[bytes]) -> None:
    while start < end:
        block = os.pread(source, min(end - start, _BLOCK), start)
        if not block:  # another program has cut the file meanwhile
            raise OSError(errno.EIO, "the file got shorter while it was read")
        target.write(block)
        start += len(block)


def _moved(byte: int, cuts: list[_Cut]) -> int:
    """Where a byte lies once the cuts are made."""
    return byte - sum(min(byte, cut.end) - cut.start for cut in cuts if cut.start < byte)


def _move_notes(path: Path, kept: Path, cuts: list[_Cut]) -> None:
    """Have the notes of the file's writers name the places where their lines lie now."""
    notes = read_writers(path)
    if last := [note for note in notes if note["event"] == "open"][-1:]:
        byte = last[0]["byte"]
        since = count_lines(path, byte) - count_lines(kept, _moved(byte, cuts))
        last[0]["superseded"] = last[0].get("superseded", 0) + since
    lines = (
        orjson.dumps({**note, "byte": _moved(note["byte"], cuts)}, None, orjson.OPT_APPEND_NEWLINE)
        for note in notes
    )
    write_atomically(writers_path(path), b"".join(lines))

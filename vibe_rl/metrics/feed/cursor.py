"""How far a backend has got in a metrics file: a small file beside it, locked while in use."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from glob import escape
from pathlib import Path
from typing import Any

import orjson

from vibe_rl.metrics.lines import Lines, Position

_log = logging.getLogger("vibe_rl")

_MAX_BYTES = 4096


class CursorInUseError(Exception):
    """Another feed delivers to this backend from this file."""


class Cursor:
    """A backend's saved position in a metrics file; nobody else's while this object is open.

    Args:
        path: The metrics file.
        identity: What tells the backend from others; see `identity_of`.

    Attributes:
        restart: The step that the run has gone back to, until the backend has been told; else None.

    Raises:
        CursorInUseError: If another feed holds it, in this process or another.
        OSError: If the cursor's file can't be opened.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self._path = cursor_path(path, identity)
        label = _relocatable(identity, path)[:1000]
        self._label = label.encode("ascii", "backslashreplace").decode()
        self._fd = _lock(self._path)
        self.restart = _restart(os.pread(self._fd, _MAX_BYTES, 0))

    def seek(self, lines: Lines, start: Position) -> None:
        """Put a reader where the backend left off; at `start` if it is new to the file.

        A cursor that doesn't fit the file (which was cut short, or is another one of that name)
        warns; the backend then goes on at the file's end, or as one that is new to it.
        """
        text = os.pread(self._fd, _MAX_BYTES, 0)
        saved = _parse(text)
        if saved is None:
            if text.strip():
                _log.warning("%s is no cursor; %s", self._path, _begins_anew(start))
            lines.seek(start)
            return
        position, file_id = saved
        if file_id is not None and file_id != lines.file_id():
            _log.warning("%s belongs to another file; %s", self._path, _begins_anew(start))
            lines.seek(start)
        elif not lines.is_boundary(position.byte):  # there is nothing beyond the end
            _log.warning("%s fits no line; the file was cut short: going on at its end", self._path)
            lines.seek(lines.end())
        else:
            lines.seek(position)

    def save(self, position: Position, file_id: str | None) -> None:
        """Remember a position.

        Raises:
            OSError: If that fails.
        """
        text = orjson.dumps(
            {
                "backend": self._label,
                "byte": position.byte,
                "ordinal": position.ordinal,
                "file": file_id,
                **({} if self.restart is None else {"restart": self.restart}),
            }
        )
        if os.fstat(self._fd).st_nlink == 0:  # somebody has deleted it
            before, self._fd = self._fd, _lock(self._path)
            os.close(before)
        # In place, for a lock doesn't survive a rename. One write of a few hundred bytes that never
        # gets shorter: whenever the process is killed, the file holds the old text or the new.
        os.pwrite(self._fd, text.ljust(os.fstat(self._fd).st_size), 0)

    def close(self) -> None:
        """Let another feed have it. Doing so again does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def move_cursors(
    path: Path, moved: Callable[[int], int], file_id: str | None, *, restart: int, hold: ExitStack
) -> None:
    """Have the cursors of a metrics file name its places anew.

    Args:
        path: The metrics file.
        moved: Gives the byte at which a line lies from now on.
        file_id: What tells the file from others from now on.
        restart: The step that the run goes back to, of which the backends are to be told.
        hold: Keeps the cursors locked.

    Raises:
        CursorInUseError: If a feed holds one of them. None has been changed then.
    """
    cursors = []
    for file in _cursor_paths(path):
        fd = _lock(file)
        hold.callback(os.close, fd)
        cursors.append(fd)
    for fd in cursors:
        text = os.pread(fd, _MAX_BYTES, 0)
        if (saved := _parse(text)) is not None:
            before = _restart(text)
            fields = {
                **orjson.loads(text),
                "byte": moved(saved[0].byte),
                "file": file_id,
                "restart": restart if before is None else min(restart, before),
            }
            os.pwrite(fd, orjson.dumps(fields).ljust(len(text)), 0)


def is_in_use(path: Path, label: str) -> bool:
    """Whether a feed delivers a metrics file to any backend whose identity begins with a word."""
    for file in _cursor_paths(path, label):
        with file.open("rb") as cursor:
            try:
                fcntl.flock(cursor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
    return False


def saved_positions(path: Path) -> dict[str, Position]:
    """How far each backend is in a metrics file, by its identity, as far as cursors can be read."""
    found = {}
    for file in sorted(_cursor_paths(path)):
        text = file.read_bytes()
        if (saved := _parse(text)) is not None:
            found[str(orjson.loads(text).get("backend"))] = saved[0]
    return found


def identity_of(backend: Any, nth: int) -> str:
    """What tells a backend from others on the same file, today and when the run is opened again.

    Args:
        backend: Its `identity` if it has one, else its `name`, else its class and `nth`.
        nth: Its place among the logger's backends of its class, from 0.
    """
    given = getattr(backend, "identity", None) or getattr(backend, "name", None)
    return str(given) if given else f"{type(backend).__qualname__} {nth}"


def cursor_path(path: Path, identity: str) -> Path:
    """The file of a backend's cursor, beside the metrics file."""
    identity = _relocatable(identity, path)
    label = re.sub(r"\W+", "-", identity.split(" ")[0])[:40].strip("-")
    digest = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return path.with_name(f"{path.name.removesuffix('.jsonl')}.{label}-{digest}.cursor.json")


def _lock(file: Path) -> int:
    """Open a cursor's file, which nobody else can then; gives its descriptor."""
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            os.close(fd)
            raise CursorInUseError(f"{file} is in use") from None
        # Locks don't work on this file system: go on without.
    return fd


def _cursor_paths(path: Path, label: str = "*") -> Iterator[Path]:
    stem = path.name.removesuffix(".jsonl")
    for file in path.parent.glob(f"{escape(stem)}.{label}-*.cursor.json"):
        # No label has a dot: what has one is another file's, such as metrics.eval.jsonl's.
        if "." not in file.name[len(stem) + 1 : -len(".cursor.json")]:
            yield file


def _relocatable(identity: str, path: Path) -> str:
    """The identity in words that stay true when the run's directory is moved or renamed."""
    logs = os.path.abspath(path.parent)  # noqa: PTH100 - resolves `..`, but no symbolic links
    for directory, word in ((logs, "<logs>"), (os.path.dirname(logs), "<run>")):  # noqa: PTH120
        identity = re.sub(rf"{re.escape(directory)}(?=/|$)", word, identity)
    return identity


def _parse(text: bytes) -> tuple[Position, str | None] | None:
    """The position and the file that a cursor names; None unless all of it makes sense."""
    try:
        saved = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(saved, dict):
        return None
    byte, ordinal, file_id = (saved.get(name) for name in ("byte", "ordinal", "file"))
    if (
        type(byte) is not int
        or type(ordinal) is not int
        or not (0 <= ordinal < 2**63 and 0 <= byte < 2**63)
    ):
        return None
    return (Position(byte, ordinal), file_id) if isinstance(file_id, str | None) else None


def _restart(text: bytes) -> int | None:
    """The step in a cursor that its backend is to be told of."""
    with contextlib.suppress(orjson.JSONDecodeError):
        saved = orjson.loads(text)
        if isinstance(saved, dict) and type(saved.get("restart")) is int:
            return int(saved["restart"])
    return None


def _begins_anew(start: Position) -> str:
    return f"the backend begins at byte {start.byte}; `vibe-rl sync --from-start` delivers the rest"

"""How far a backend has got in a metrics file: a small file beside it, locked while in use."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from glob import escape
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from vibe_rl.metrics.backends.protocol import text_of
from vibe_rl.metrics.lines import Lines, Position
from vibe_rl.metrics.locks import release, share, unlock

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
        label = _relocatable(identity, path).encode("ascii", "backslashreplace").decode()
        self._label = label[:500]  # all of it has to fit into _MAX_BYTES
        self._fd = _lock(self._path)
        self._inode = _inode(path)
        saved = _parse(os.pread(self._fd, _MAX_BYTES, 0), self._inode)
        self.restart = saved.restart if saved else None

    def seek(self, lines: Lines, start: Position) -> None:
        """Put a reader where the backend left off; at `start` if it is new to the file.

        A cursor that doesn't fit the file (which was cut short, or is another one of that name)
        warns; the backend then goes on at the last line before, or as one that is new to it.
        """
        text = os.pread(self._fd, _MAX_BYTES, 0)
        saved = _parse(text, self._inode)
        if saved is None:
            if text.strip():
                _log.warning("%s is no cursor; %s", self._path, _begins_anew(start))
            lines.seek(start)
            return
        if saved.file_id is not None and saved.file_id != lines.file_id():
            _log.warning("%s belongs to another file; %s", self._path, _begins_anew(start))
            lines.seek(start)
        elif not lines.is_boundary(saved.position.byte):  # there is nothing beyond the end
            _log.warning(
                "%s fits no line; the file was cut short: going on at the last line before",
                self._path,
            )
            lines.seek(lines.end(saved.position.byte))
        else:
            lines.seek(saved.position)

    def save(self, position: Position, file_id: str | None) -> None:
        """Remember a position.

        Raises:
            OSError: If that fails.
        """
        if os.fstat(self._fd).st_nlink == 0:  # somebody has deleted it
            before, self._fd = self._fd, _lock(self._path)
            os.close(before)
        saved = _Saved(position, file_id, self.restart)
        _rewrite(self._fd, {"backend": self._label, **saved.fields()})

    def close(self) -> None:
        """Let another feed have it. Doing so again does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            release(fd)

    def after_fork(self) -> None:
        """In a forked child: leave it to the parent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


@contextmanager
def cursors_moved(
    path: Path, replacement: Path, moved: Callable[[int], int], file_id: str | None, *, restart: int
) -> Iterator[None]:
    """Keep the cursors of a metrics file locked while another one takes its place.

    Killed at any moment, each cursor fits the file that has the name then.

    Args:
        path: The metrics file.
        replacement: The file that is about to be renamed to that.
        moved: Gives the byte at which a line of the metrics file lies in the other.
        file_id: What tells the other file from others.
        restart: The step that the run goes back to, of which the backends are to be told.

    Raises:
        CursorInUseError: If a feed holds one of them. None has been changed then.
    """
    with ExitStack() as hold:
        cursors = []
        for file in _cursor_paths(path):
            fd = _lock(file)
            hold.callback(release, fd)
            cursors.append((fd, os.pread(fd, _MAX_BYTES, 0)))
        moves = []
        for fd, text in cursors:
            if (saved := _parse(text, _inode(path))) is not None:
                label = {"backend": orjson.loads(text).get("backend")}
                position = Position(moved(saved.position.byte), saved.position.ordinal)
                steps = [step for step in (restart, saved.restart) if step is not None]
                then = _Saved(position, file_id, min(steps)).fields()
                now = {**label, **saved.fields()}
                moves.append((fd, now, {**label, **then}))
                _rewrite(fd, {**now, "moved": {"inode": _inode(replacement), **then}})
        try:
            yield
        except BaseException:
            for fd, now, _ in moves:
                _rewrite(fd, now)
            raise
        for fd, _, then in moves:
            _rewrite(fd, then)


def is_in_use(path: Path, label: str) -> bool:
    """Whether a feed delivers a metrics file to any backend whose identity begins with a word."""
    for file in _cursor_paths(path, label):
        with file.open("rb") as cursor:
            if not share(cursor.fileno()):  # a feed has it exclusively
                return True
            unlock(cursor.fileno())
    return False


def saved_positions(path: Path) -> dict[str, Position]:
    """How far each backend is in a metrics file, by its identity, as far as cursors can be read."""
    found = {}
    for file in sorted(_cursor_paths(path)):
        text = file.read_bytes()
        if (saved := _parse(text, _inode(path))) is not None:
            found[str(orjson.loads(text).get("backend"))] = saved.position
    return found


def identity_of(backend: Any, nth: int) -> str:
    """What tells a backend from others on the same file, today and when the run is opened again.

    Args:
        backend: Its text `identity` if it has one, else its `name`, else its class and `nth`.
        nth: Its place among the logger's backends of its class, from 0.
    """
    # Anything else of these names, such as a method, could have another text in each process.
    given = text_of(backend, "identity") or text_of(backend, "name")
    return given or f"{type(backend).__qualname__} {nth}"


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


class _Saved(NamedTuple):
    """What a cursor's file holds."""

    position: Position
    file_id: str | None
    restart: int | None

    def fields(self) -> dict[str, Any]:
        return {
            "byte": self.position.byte,
            "ordinal": self.position.ordinal,
            "file": self.file_id,
            **({} if self.restart is None else {"restart": self.restart}),
        }


def _parse(text: bytes, inode: int | None) -> _Saved | None:
    """What a cursor's file holds about the metrics file of this inode; None unless it makes sense.

    Where a file was to take the metrics file's place, and did, the cursor has moved.
    """
    try:
        saved = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(saved, dict):
        return None
    moved = saved.get("moved")
    if isinstance(moved, dict) and inode is not None and moved.get("inode") == inode:
        saved = moved
    byte, ordinal, file_id = (saved.get(name) for name in ("byte", "ordinal", "file"))
    if (
        type(byte) is not int
        or type(ordinal) is not int
        or not (0 <= ordinal < 2**63 and 0 <= byte < 2**63)
        or not isinstance(file_id, str | None)
    ):
        return None
    restart = saved.get("restart")
    return _Saved(Position(byte, ordinal), file_id, restart if type(restart) is int else None)


def _rewrite(fd: int, fields: dict[str, Any]) -> None:
    # In place, for a lock doesn't survive a rename. One write of a few hundred bytes that never
    # gets shorter: whenever the process is killed, the file holds the old text or the new.
    os.pwrite(fd, orjson.dumps(fields).ljust(os.fstat(fd).st_size), 0)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _begins_anew(start: Position) -> str:
    return f"the backend begins at byte {start.byte}; `vibe-rl sync --from-start` delivers the rest"

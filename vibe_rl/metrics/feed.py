"""One backend following the metrics file, at its own pace."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vibe_rl.metrics.backends.protocol import LogBackend
from vibe_rl.metrics.jsonl import decode
from vibe_rl.metrics.threads import Alarm, BackgroundThread

_log = logging.getLogger("vibe_rl")

# The training loop shares the GIL with us: short slices of work, and longer pauses between them.
_SLICE_S = 100e-6
_PAUSE_S = 1e-3
_BLOCK = 1 << 16
# Without a time-out, how long to wait for a backend that shows no sign of life.
PATIENCE_S = 30.0


@dataclass(frozen=True)
class BackendStats:
    """How far a backend is.

    Attributes:
        logged: Records that it took.
        failed: Records that it raised an error for.
        behind: Bytes of the metrics file that it has yet to see.
    """

    logged: int
    failed: int
    behind: int


class Feed:
    """Reads a metrics file's lines from a cursor on, and hands each record to a backend.

    Args:
        backend: Gets the records, in order, all on one thread.
        path: The metrics file; it exists already.
        cursor: The byte to begin at: the start of a line.

    Attributes:
        name: What messages call the backend.
    """

    def __init__(self, backend: LogBackend, path: Path, cursor: int) -> None:
        self.name = getattr(backend, "name", None) or type(backend).__name__
        self._backend = backend
        self._path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._cursor = cursor
        self._logged = self._failed = 0
        self._errors: dict[type[BaseException], int] = {}
        self._alarm = Alarm()
        self._changed = threading.Condition()
        self._waiters = 0  # in flush() and close(): while there are any, the feed doesn't pause
        self._asked = 0
        self._done: float = 0  # the last ticket that is done; of a closed feed, every one is
        self._closing = False
        self._alive = self._slice_end = time.monotonic()
        BackgroundThread(self._run, f"feed of {self.name}").start()

    @property
    def stats(self) -> BackendStats:
        """How far the backend is."""
        return BackendStats(self._logged, self._failed, self._behind())

    def wake(self) -> None:
        """Say that the file has grown."""
        self._alarm.ring()

    def ask(self, *, close: bool = False) -> int:
        """Ask for all that the file holds now to be delivered, the last lines too, without pauses.

        Args:
            close: Close the backend after that.

        Returns:
            A ticket for `wait()`, which must follow.
        """
        with self._changed:
            self._closing |= close
            self._asked += 1
            self._waiters += 1
        self._alarm.ring()
        return self._asked

    def wait(self, ticket: int, deadline: float | None) -> bool:
        """Wait until what was asked for is done; False if the backend did not do it in time.

        Args:
            ticket: From `ask()`.
            deadline: On `time.monotonic()`'s clock. None waits as long as the backend makes
                progress, and gives up 30 s after its last sign of life.
        """
        since = time.monotonic()
        with self._changed:
            try:
                while self._done < ticket:
                    limit = deadline or max(since, self._alive) + PATIENCE_S
                    left = limit - time.monotonic()
                    if left <= 0:
                        return False
                    self._changed.wait(left)
            finally:
                self._waiters -= 1
        return True

    def _behind(self) -> int:
        return max(self._path.stat().st_size - self._cursor, 0)

    # -- on the feed's thread -----------------------------------------------------------------

    def _run(self) -> None:
        closing = False
        while not closing:
            with self._changed:
                asked, closing = self._asked, self._closing
            for line in self._lines():
                self._deliver(line)
            if asked > self._done:
                self._call(getattr(self._backend, "flush", None))
            if closing:
                self._call(self._backend.close)
                os.close(self._fd)
            with self._changed:
                self._done = math.inf if closing else asked
                self._changed.notify_all()
            if not closing:
                self._alarm.wait()

    def _lines(self) -> Iterator[bytes]:
        """The whole lines between the cursor and the end of the file, moving the cursor on."""
        size = _BLOCK
        while block := os.pread(self._fd, size, self._cursor):
            lines = block.split(b"\n")
            if len(lines) == 1:
                if len(block) < size:
                    return  # an append under way
                size *= 2
                continue
            for line in lines[:-1]:
                yield line
                self._cursor += len(line) + 1
            size = _BLOCK

    def _deliver(self, line: bytes) -> None:
        try:
            record = decode(line)
        except ValueError:
            if line.strip():
                _log.warning("%s, byte %d: not a record; passed over", self._path, self._cursor)
            return
        step = record.get("step")
        if self._call(self._backend.log, record, step if type(step) is int else None):
            self._logged += 1
        else:
            self._failed += 1
        self._rest()

    def _call(self, method: Callable[..., object] | None, *args: object) -> bool:
        """Call the backend; an error is logged, the first of its type with a traceback."""
        if method is None:
            return True
        try:
            method(*args)
        except Exception as error:  # noqa: BLE001 - whatever a backend raises must harm nobody else
            count = self._errors[type(error)] = self._errors.get(type(error), 0) + 1
            if count == 1:
                _log.error(
                    "%s raised; the file and other backends go on", self.name, exc_info=error
                )
            return False
        finally:
            self._alive = time.monotonic()
        return True

    def _rest(self) -> None:
        if self._alive >= self._slice_end and not self._waiters:
            time.sleep(_PAUSE_S)
            self._slice_end = time.monotonic() + _SLICE_S

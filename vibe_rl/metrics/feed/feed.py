"""One backend following the metrics file, at its own pace, on a thread of its own."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vibe_rl.metrics.backends.protocol import LogBackend, method_of
from vibe_rl.metrics.feed import tickets
from vibe_rl.metrics.feed.cursor import Cursor, CursorInUseError, identity_of
from vibe_rl.metrics.feed.delivery import Delivery
from vibe_rl.metrics.feed.tickets import Tickets
from vibe_rl.metrics.lines import Lines, Position, StartTimes
from vibe_rl.metrics.threads import BackgroundThread, Bell

_log = logging.getLogger("vibe_rl")

# The training loop shares the GIL with us: short slices of work, and longer pauses between them.
_SLICE_S = 130e-6
_PAUSE_S = 1e-3
# Between two saves of the cursor; and how long a backend without flush() may hold a record back.
_SAVE_S = 2.0
# How often a feed whose cursor is in use looks whether it is free.
_CURSOR_S = 1.0
# How often a feed looks for lines that loggers of other processes have appended.
_LOOK_S = 1.0


@dataclass(frozen=True)
class BackendStats:
    """How far a backend is.

    Attributes:
        logged: Records that it took.
        failed: Records that were passed over, because it raised an error for them whenever they
            were tried, and took the next.
        behind: Bytes of the metrics file that it has yet to see.

    Examples:
        >>> run = RunDir("example")
        >>> backend = TensorBoardBackend(log_dir=run.logs)
        >>> with MetricsLogger(run, backends=[backend]) as logger:
        ...     logger.write({"step": 0, "loss": 0.5})
        >>> logger.stats.backends["TensorBoardBackend"]
        BackendStats(logged=1, failed=0, behind=0)
    """

    logged: int
    failed: int
    behind: int


class Feed(Tickets):
    """Reads a metrics file's lines from the backend's cursor on, and hands each record over.

    If another feed has the cursor, this one waits until that one ends, and goes on from there.

    Args:
        backend: Gets the records, in order, all on one thread. Its `flush()`, if it has one, is
            called before a position is saved.
        path: The metrics file; it exists already.
        start: Where a backend begins that has no cursor beside the file yet.
        name: What messages call the backend.
        nth: Its place among the logger's backends of its class.
        from_start: Begin at `start` even if there is a cursor.
        paced: Pause between slices of work, because a training loop shares the GIL.
        on_settled: Called on the feed's thread when it has settled a ticket.

    Raises:
        OSError: If the file can't be read.
        Exception: What the backend's `identity` raises.
    """

    def __init__(
        self,
        backend: LogBackend,
        path: Path,
        start: Position,
        *,
        name: str,
        nth: int = 0,
        from_start: bool = False,
        paced: bool = True,
        on_settled: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(name)
        self._backend = backend
        self._flush = method_of(backend, "flush")
        self._restart = method_of(backend, "restart")
        with suppress(Exception):  # of a property
            self.takes_exit_code = hasattr(backend, "exit_code")
        self._path = path
        self._start = start
        self._from_start = from_start
        self._identity = identity_of(backend, nth)
        self._paced = paced
        self._on_settled = on_settled
        self._lines = Lines(path, start)
        self._times = StartTimes(path)
        self._delivery = Delivery(
            backend,
            name,
            self._lines,
            self._times,
            pause=self._pause,
            is_awaited=lambda: self._waiters > 0,
        )
        self._bell = Bell()
        self._slice_end = 0.0
        self._cursor: Cursor | None = None
        self._saved = self._held = start
        self._save_at = math.inf
        self._left: int | None = None  # bytes behind, once closed
        self._warned: set[str] = set()
        self.is_refused = not self._take_cursor()  # for another feed to end
        if self.is_refused:
            _log.warning(
                "%s is refused: another feed delivers %s to %r, and this one would repeat it; it "
                "takes over when that one ends",
                name,
                path,
                self._identity,
            )
        BackgroundThread(self._run, f"feed of {name}").start()

    @property
    def stats(self) -> BackendStats:
        """How far the backend is."""
        behind = self._left
        if behind is None:
            try:
                behind = self._behind()
            except OSError:  # closed since
                behind = self._left or 0
        return BackendStats(self._delivery.logged, self._delivery.failed, behind)

    @property
    def position(self) -> Position:
        """How far the backend is in the file."""
        return self._lines.position

    @property
    def saved(self) -> Position:
        """How far it is for sure: where it would go on after a crash."""
        return self._saved

    def wake(self) -> None:
        """Say that the file has grown."""
        self._bell.ring()

    def ask(
        self, *, close: bool = False, exit_code: int | None = None, ticket: int | None = None
    ) -> int:
        """See `Tickets.ask`."""
        ticket = super().ask(close=close, exit_code=exit_code, ticket=ticket)
        self._bell.ring()
        return ticket

    def after_fork(self) -> None:
        """In a forked child: let go of what keeps others from the cursor."""
        self._lines.close()
        if self._cursor:
            self._cursor.after_fork()

    def _behind(self) -> int:
        return 0 if self.is_refused else max(self._lines.size - self._lines.position.byte, 0)

    # -- on the feed's thread -----------------------------------------------------------------

    def _run(self) -> None:
        delivered = False
        try:
            delivered = self._follow()
        except BaseException as error:  # noqa: BLE001 - a fault of ours, or a logging handler's
            _log.error("%s gets no more records: its feed has failed", self.name, exc_info=error)
        finally:
            self._close(delivered=delivered)

    def _follow(self) -> bool:
        """Deliver and settle tickets until somebody closes; whether the backend has everything."""
        while True:
            with self._changed:
                asked, closing = self._asked, self._closing
            self._alive = time.monotonic()
            if self._saved == self._lines.position:
                self._save_at = self._alive + _SAVE_S
            goes_on = self._catch_up_in_the_end()
            if closing or not goes_on:
                return goes_on and not self.is_refused
            if asked > self._settled:
                self._settle(asked, delivered=not self.is_refused and self._flush_now())
            self._sleep()

    def _tell_of_restart(self) -> None:
        """Tell the backend that the run has gone back to a step, if it wants to know."""
        cursor = self._cursor
        if cursor is None or cursor.restart is None:
            return
        if self._restart is not None:
            self._delivery.call("restart", self._restart, cursor.restart)
        # Also if it raised: told later, it would drop what was logged meanwhile.
        cursor.restart = None
        if self._flush is None:
            self._save(self._lines.position)
        else:
            self._flush_now()

    def _catch_up_in_the_end(self) -> bool:
        """Catch up, even if the file can't be read for a while; False as `_catch_up`."""
        while True:
            try:
                return self._catch_up()
            except OSError as error:  # not the backend's: those go no further than `Delivery`
                self._warn_once("the metrics file can't be read, which is tried again", error)
            if not self._pause(_LOOK_S):
                return False

    def _catch_up(self) -> bool:
        """Deliver what the file holds now; False if the backend was given up."""
        if self.is_refused:
            if self._closing or not self._take_cursor():
                return True
            self.is_refused = False
        self._tell_of_restart()
        end = self._look_at_file()
        while not self._abandoned:
            for is_past in self._delivery.deliver(end):
                if self._abandoned or not is_past:
                    return False
                self._alive = now = time.monotonic()
                if now >= self._save_at:
                    self._save_when_due()
                if self._paced and now >= self._slice_end and not self._waiters:
                    time.sleep(_PAUSE_S)
                    self._slice_end = time.monotonic() + _SLICE_S
            if not self._lines.move_on():
                return True
            self._held = self._lines.position
            end = self._look_at_file()
        return False

    def _look_at_file(self) -> int:
        """See what the file is now; gives its size."""
        end = self._lines.refresh()
        self._times.refresh()
        if self._held.byte > self._lines.position.byte:  # which lies in what was there before
            self._held = self._lines.position
        return end

    def _sleep(self) -> None:
        if self.is_refused:
            self._bell.wait(_CURSOR_S)
        elif self._saved == self._lines.position:
            self._bell.wait(_LOOK_S)
        else:
            self._bell.wait(max(self._save_at - time.monotonic(), 0))
            if time.monotonic() >= self._save_at:
                self._save_when_due()

    def _pause(self, seconds: float) -> bool:
        """Wait before the backend is tried again, until somebody asks; False if it is given up."""
        with self._changed:
            asked = self._asked
            if time.monotonic() + seconds > self._alive + tickets.PATIENCE_S:
                if self._closing:
                    return False
                self._settle(asked, delivered=False)
            self._changed.wait_for(lambda: self._abandoned or self._asked > asked, seconds)
            return not self._abandoned

    def _close(self, *, delivered: bool) -> None:
        closed = False
        try:
            if self._exit_code is not None and self.takes_exit_code:
                with suppress(Exception):  # it can't be set
                    self._backend.exit_code = self._exit_code  # type: ignore[attr-defined]
            self._alive = time.monotonic()  # close() has its own time, however long records took
            closed = self._delivery.call("close", self._backend.close)
            if closed:
                self._save(self._lines.position)
            self._delivery.sum_up()
        finally:
            with suppress(OSError):
                self._left = self._behind()
            self._lines.close()
            if self._cursor:
                self._cursor.close()
            self._settle(math.inf, delivered=delivered and closed)

    def _settle(self, ticket: float, *, delivered: bool) -> None:
        super()._settle(ticket, delivered=delivered)
        self._on_settled()

    # -- the cursor ---------------------------------------------------------------------------

    def _take_cursor(self) -> bool:
        """Go to where the backend left off; False if another feed is at it."""
        cursor = None
        try:
            cursor = Cursor(self._path, self._identity)
            if not self._from_start:
                cursor.seek(self._lines, self._start)
        except CursorInUseError:
            return False
        except OSError as error:
            if cursor:
                cursor.close()
            if cursor or self.is_refused:  # then the other feed may be at it still
                raise
            _log.warning("%s: no cursor: %s; a crash repeats or skips records", self.name, error)
        self._cursor = cursor
        self._held = self._lines.position
        self._save(self._held)
        return True

    def _save_when_due(self) -> None:
        """Save how far the backend surely is, at most every 2 s."""
        if self._flush is None:
            safe, self._held = self._held, self._lines.position
            self._save(safe)
        else:
            self._flush_now()
        self._save_at = time.monotonic() + _SAVE_S

    def _flush_now(self) -> bool:
        if self._flush is None:
            return True
        flushed = self._delivery.call("flush", self._flush, again=True)
        self._alive = time.monotonic()
        if flushed:
            self._save(self._lines.position)
        return flushed

    def _save(self, position: Position) -> None:
        if self._cursor is None:
            self._saved = position
            return
        try:
            self._cursor.save(position, self._lines.file_id())
        except (OSError, CursorInUseError) as error:
            self._warn_once("its cursor can't be saved", error)
        self._saved = position

    def _warn_once(self, what: str, error: Exception) -> None:
        if what not in self._warned:
            self._warned.add(what)
            _log.warning("%s: %s: %s", self.name, what, error)

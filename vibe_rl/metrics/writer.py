"""The bounded queue between the training loop and the thread that appends to the file."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from operator import call
from typing import Literal

from vibe_rl.metrics.items import Block, LinesOf, count_records, records_of
from vibe_rl.metrics.threads import BackgroundThread, Bell

_log = logging.getLogger("vibe_rl")

Overflow = Literal["block", "drop_oldest", "drop_newest"]

MAX_BYTES = 256 << 20
# Lines joined for one append: few enough to hold the GIL for some hundred microseconds at most, and
# as many as that, because beside a loop that holds the GIL each append waits 5 ms to get it back.
# That makes 200,000 a second; where more come, a burst takes its share of those that wait.
_BURST_LINES = 1_000
_BURST_SHARE = 8
_BURST_BYTES = 1 << 20
# How much longer than lines blocks take, whose lines are yet to be made.
_BLOCK_COST = 32
# After a failed append: the pause before the next try, at first and at most.
_RETRY_S = (0.1, 1.0)
# The pause between two looks at what will be put some time.
_IDLE_S = 0.1
# How long a caller sleeps at a time. No longer, for a signal handler may close() between its look
# at the thread and its sleep: then nobody is left to wake it.
_NAP_S = 1.0
# How long close() goes on trying when appends fail.
_CLOSE_PATIENCE_S = 2.0


class ClosedError(ValueError):
    """The writer was closed while something was put into its queue, which is not there."""


class Writer:
    """Takes encoded lines from any thread, and appends them to a file from a thread of its own.

    The queue is a `deque`, whose `append` and `popleft` are atomic, so a `put()` that finds room
    takes no lock. Room is counted in slots of `MAX_BYTES / queue_size` bytes: most lines take one,
    a longer line as many as it fills, which bounds records and bytes at once.

    Args:
        append: Appends the first of some lines to the file, and says how many bytes they have.
        on_append: Called on the writer's thread when lines have landed.
        queue_size: The most lines that wait at a time.
        overflow: What `put()` does when there is no room.
        flush_interval: Seconds between two appends while lines come in.
        on_idle: Called on the writer's thread before it sleeps, and every now and then while it
            says that there will be more to put.

    Attributes:
        written: Lines that this writer has put in the file.
        high_water: The most lines that ever waited at a time.
    """

    def __init__(
        self,
        append: Callable[[memoryview], int],
        on_append: Callable[[], None],
        *,
        queue_size: int,
        overflow: Overflow,
        flush_interval: float,
        on_idle: Callable[[], bool] = lambda: False,
    ) -> None:
        self._append = append
        self._on_append = on_append
        self._size = min(queue_size, MAX_BYTES)  # a slot has a byte at least
        self._slot = MAX_BYTES // self._size
        self._overflow = overflow
        self._interval = flush_interval
        self._on_idle = on_idle
        self._reset()
        self._thread: BackgroundThread | None = BackgroundThread(self._run, "writer")
        self._thread.start()

    def _reset(self) -> None:
        self.written = self.high_water = 0
        self._given_up = 0  # for want of room
        self._lines_of = LinesOf()
        self._queue: deque[bytes | Block] = deque()
        # Slots that long lines and blocks take, and records that blocks hold, beyond one an item;
        # changed under the lock.
        self._extra = self._folded = 0
        self._unlanded = memoryview(b"")  # taken from the queue, but not yet in the file,
        self._unlanded_lines = 0  # and how many lines that is
        self._error: Exception | None = None  # why the last append failed
        self._warned = False
        self._flush_asked = self._flush_done = 0
        self._closing = self._closed = False
        self._draining = False  # whether a caller's thread does the work of ours
        self._bell = Bell()
        self._asleep = False  # whether the thread sleeps until the bell rings
        # Re-entrant, because a signal handler may write() while its thread is in here. For the same
        # reason, no statement that adds to a count calls anything.
        self._changed = threading.Condition(threading.RLock())

    def after_fork(self) -> None:
        """In a forked child: leave the parent's lines to it, and append within `put()`."""
        self._reset()
        self._thread = None
        self._asleep = True

    # -- on the caller's thread ---------------------------------------------------------------

    def put(self, line: bytes | Block) -> None:
        """Queue a line, or a block of one record.

        Raises:
            ClosedError: If the writer was closed meanwhile.
        """
        if len(self._queue) + self._extra >= self._size // 2 or len(line) > self._slot:
            self._put_with_care(line, deque((line,)))
        else:
            self._queue.append(line)
        # After the append, for the thread looks at the queue after it has set this.
        if self._asleep:
            self._attend(line)

    def put_block(self, block: Block) -> None:
        """Queue several records at once; `put()` for each of them, but for the cost.

        Raises:
            ClosedError: If the writer was closed meanwhile.
        """
        self._put_with_care(block, deque((block,)))
        if self._asleep:
            self._attend(block)

    def put_first(self, items: deque[bytes | Block]) -> None:
        """Take the first of these items out, and queue it.

        A signal handler may call this too while its thread is in here, or raise.

        Raises:
            ClosedError: If the writer was closed meanwhile.
        """
        if not items:
            return  # the signal handler was faster
        item = items[0]
        has_room = len(self._queue) + self._extra < self._size // 2 and len(item) <= self._slot
        if has_room and records_of(item) == 1:
            self._move(items)
        else:
            self._put_with_care(item, items)
        if self._asleep:
            self._attend(item)

    def wake(self) -> None:
        """Have the thread look whether there is something to do; `on_idle` too."""
        self._bell.ring()

    @property
    def queued(self) -> int:
        """Lines accepted, but not yet in the file."""
        return len(self._queue) + self._folded + self._unlanded_lines

    @property
    def dropped(self) -> int:
        """Lines given up because there was no room, or because they could not be made."""
        return self._given_up + self._lines_of.lost

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until every line put before is in the file; False if `timeout` seconds were too few.

        Raises:
            OSError: If the file can't be appended to; says how many lines have not landed.
        """
        with self._changed:
            self._flush_asked += 1
            mine = self._flush_asked
            if not self._await_thread(lambda: self._flush_done >= mine, timeout):
                return False
            if self._thread is None and not self._closed:
                self._drain_here()
            self._raise_if_unlanded()
        return True

    def close(self, timeout: float | None = None) -> bool:
        """Append what waits and end the thread; False if `timeout` seconds were too few for it.

        Raises:
            OSError: If the file can't be appended to; says how many lines are lost.
        """
        self._closing = True
        with self._changed:
            if not self._await_thread(lambda: False, timeout):
                return False
            if not self._closed:
                self._drain_here()  # what a put() that was under way has queued since
                self._closed = True
                self._changed.notify_all()
                self._raise_if_unlanded()
        return True

    def _await_thread(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until `done()` or the thread's end; False if `timeout` seconds were too few.

        This gives up the lock, as joining the thread wouldn't: in a signal handler, the lock may be
        held by the very put() that was interrupted.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._thread is not None and not done():
            self._bell.ring()
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            self._changed.wait(_NAP_S if left is None else min(left, _NAP_S))
        return True

    def _put_with_care(self, item: bytes | Block, items: deque[bytes | Block]) -> None:
        """Queue this, the first of those, with a look at its room, and at what there is."""
        slots, records = self._slots(item), records_of(item)
        if self._is_full(slots) and not self._warned:
            self._warned = True
            consequence = {
                "block": "write() waits until the disk has caught up",
                "drop_oldest": "the oldest records are dropped",
                "drop_newest": "new records are dropped",
            }[self._overflow]
            # Outside the lock: a logging handler may hold a lock of its own, and write() to us.
            _log.warning("the queue of %d records is full: %s", self._size, consequence)
        with self._changed:
            # The look at the items comes last: a signal handler may have put this one.
            while self._is_full(slots) and items and not self._closed:
                if self._overflow == "drop_newest":
                    items.popleft()
                    self._given_up += records
                    return
                if self._overflow == "drop_oldest":
                    dropped = count_records(*self._take(1))
                    self._given_up += dropped
                elif self._draining or isinstance(threading.current_thread(), BackgroundThread):
                    break
                elif self._thread is None:
                    time.sleep(_RETRY_S[0])
                    self._drain_here()
                else:
                    self._hurry()
                    self._changed.wait(_NAP_S)
            self._move(items, slots, records)
        if len(self._queue) + self._extra >= self._size // 2:
            self._hurry()

    def _move(self, items: deque[bytes | Block], slots: int = 1, records: int = 1) -> None:
        """Move the first of these to the queue, unless a signal handler has.

        In one call, so that none comes between: what it finds is in one place, and not in both.
        """
        move = map(call, (items.popleft,))
        if items:
            if slots > 1:
                self._extra += slots - 1
                self._folded += records - 1
            self._queue.extend(move)

    def _hurry(self) -> None:
        """Have the thread append now; but if that has just failed, it tries again at its pace."""
        if self._error is None:
            self._bell.ring()

    def _attend(self, item: bytes | Block) -> None:
        """Wake the thread, or, where there is none, do its work."""
        with self._changed:  # lest the thread end between these lines
            if self._thread is not None:
                self._asleep = False
                self._bell.ring()
            elif not self._closed:
                self._drain_here()
            elif item in self._queue:
                self._queue.remove(item)
                raise ClosedError("the logger was closed while this record was being written")

    def _drain_here(self) -> None:
        """Do the thread's work where there is no thread; under the lock."""
        if self._draining:
            return  # a signal handler's put() interrupts the loop below, which will see its line
        self._draining = True
        try:
            while self.queued and self._drain():
                pass
        finally:
            self._draining = False

    def _slots(self, item: bytes | Block) -> int:
        return max(-(-len(item) // self._slot), records_of(item))

    def _is_full(self, slots: int) -> bool:
        waiting = len(self._queue)
        return waiting > 0 and waiting + self._extra + slots > self._size

    def _raise_if_unlanded(self) -> None:
        if self._error is not None:
            reason = self._error
            message = f"{self.queued} records have not landed in the file: {reason}"
            raise OSError(getattr(reason, "errno", None), message) from reason

    # -- on the writer's thread ---------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._work()
        finally:
            with self._changed:
                self._thread = None
                self._asleep = True  # so that every put() from now on comes to _attend()
                self._changed.notify_all()

    def _work(self) -> None:
        pause = _RETRY_S[0]
        give_up = None
        while True:
            asked, closing = self._flush_asked, self._closing
            before = self.written
            landed = self._drain()
            if self.written > before:
                self._on_append()
            with self._changed:
                self._flush_done = asked
                self._changed.notify_all()
            if closing:
                give_up = give_up or time.monotonic() + _CLOSE_PATIENCE_S
                if landed or time.monotonic() > give_up:
                    return
            if not landed:
                self._bell.wait(pause)
                pause = min(2 * pause, _RETRY_S[1])
            elif self.written > before:
                pause = _RETRY_S[0]
                self._bell.wait(self._interval)
            else:
                self._sleep_until_needed()

    def _sleep_until_needed(self) -> None:
        self._asleep = True
        if not self._queue:  # looked at after that, for put() appends first and looks at it then
            self._bell.wait(_IDLE_S if self._on_idle() else None)
        self._asleep = False

    def _drain(self) -> bool:
        """Append the lines that wait now; False if the file takes no more."""
        waiting = len(self._queue)
        while self._unlanded_lines or waiting > 0:
            if not self._unlanded_lines:
                most = max(_BURST_LINES, len(self._queue) // _BURST_SHARE)
                items, blocks = self._take(min(waiting, most))
                self._unlanded_lines = count_records(items, blocks)
                if not items:
                    break  # put() dropped them
                waiting -= len(items)
                before = self._lines_of.lost
                # Without blocks, these are lines already.
                lines = map(self._lines_of, items) if blocks else items
                self._unlanded = memoryview(b"".join(lines))  # type: ignore[arg-type]
                self._unlanded_lines -= self._lines_of.lost - before
                continue  # there may be nothing left to append
            try:
                done = self._append(self._unlanded)
            except Exception as error:  # noqa: BLE001 - whatever it is, the thread goes on
                is_news, self._error = self._error is None, error
                if is_news:
                    _log.error(
                        "can't append to the metrics file; will go on trying: %s",
                        error,
                        exc_info=None if isinstance(error, OSError) else error,
                    )
                return False
            self._landed(done)
        return True

    def _take(self, most: int) -> tuple[list[bytes | Block], list[Block]]:
        """Take items from the queue, at most so many, and no more than a burst has bytes.

        Returns:
            The items, and which of them are blocks.
        """
        self.high_water = max(self.high_water, len(self._queue) + self._folded)
        items: list[bytes | Block] = []
        blocks: list[Block] = []
        size = 0
        try:
            while len(items) < most and size < _BURST_BYTES:
                item = self._queue.popleft()
                items.append(item)
                if isinstance(item, bytes):
                    size += len(item)
                else:
                    blocks.append(item)
                    size += _BLOCK_COST * len(item)
        except IndexError:
            pass  # put() has dropped the rest
        extra = sum(self._slots(item) - 1 for item in items) if self._extra else 0
        with self._changed:
            self._extra -= extra
            self._folded -= count_records(items, blocks) - len(items)
            self._changed.notify_all()
        return items, blocks

    def _landed(self, done: int) -> None:
        """Count the bytes that the file took: all, unless the disk is full or a signal came."""
        is_news = self._error is not None and done > 0
        if is_news:
            self._error = None
        rest = self._unlanded[done:]
        rest_lines = bytes(rest).count(b"\n")
        self.written += self._unlanded_lines - rest_lines
        self._unlanded, self._unlanded_lines = rest, rest_lines
        if is_news:  # after the count, for a logging handler may look at it, or raise
            _log.warning("the metrics file can be appended to again")

"""`defer`: records wait until their device values are there, so that the training loop needn't."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vibe_rl.metrics.host import (
    check_readable,
    check_single,
    host_record,
    host_value,
    is_on_device,
    start_copies,
)
from vibe_rl.metrics.items import Block, records_of
from vibe_rl.metrics.jit.packing import Packed
from vibe_rl.metrics.jsonl import encode
from vibe_rl.metrics.threads import BackgroundThread
from vibe_rl.metrics.unloggable import UnloggableError
from vibe_rl.metrics.writer import ClosedError

_POLL_S = 1e-3
# From so many calls on, a thread also waits for what another one wrote.
_MANY = 10_000
# How often signal handlers within signal handlers may go on with what the first has interrupted.
# There is an end, for a `logging` handler that flushes may hear of what that itself causes.
_MOST_NESTED = 5


@dataclass(slots=True, eq=False)
class Held:
    """What is to be logged once its values are there.

    Attributes:
        arrays: JAX arrays that `make` reads.
        make: Makes the items of the queue. Raises `TypeError` or `ValueError` if an array can't be
            read.
        records: How many records they hold.
        thread: The thread that wrote it.
        step: Its step, if the host knows it.
    """

    arrays: list[Any]
    make: Callable[[], Iterable[bytes | Block]]
    records: int
    thread: int
    step: int | None
    _made: list[deque[bytes | Block]] = field(default_factory=list)  # empty until they are made

    def items(self) -> deque[bytes | Block]:
        """Those that are not in the queue yet; made once."""
        if not self._made:
            self._made.append(deque(self.make()))
        return self._made[0]  # of two, if a signal handler came before the append

    def can_be_made(self) -> bool:
        """Whether `make` raises nothing."""
        try:
            self.make()
        except (TypeError, ValueError):
            return False
        return True

    def is_ready(self) -> bool:
        """Whether no array is still being computed."""
        # JAX crashes where one that was delete()d is asked whether it is ready (and where another
        # thread deletes it just then, which can't be helped).
        try:
            return all(array.is_deleted() or array.is_ready() for array in self.arrays)
        except RuntimeError:  # it has just been donated; `make` says so
            return True

    def await_values(self, deadline: float | None) -> bool:
        """Wait until `is_ready()`; False if that takes longer than the deadline."""
        if deadline is None:
            for array in self.arrays:
                with contextlib.suppress(RuntimeError):  # of its computation; `make` says so
                    array.block_until_ready()
            return True
        while not self.is_ready():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True


class Deferred:
    """Keeps the last records back, and logs them in order.

    No lock is held while waiting for a device: what it computes may itself log, by a callback. For
    the same reason a thread waits for its own records only, until very many are held.

    A signal handler may write, flush or close while its thread is in here, or raise: what is held
    is then logged by the handler, or by the call that was interrupted, or later, but once.

    Args:
        most: How many records are kept back while more come in.
        put: Takes the first of some items, and puts it into the queue; see `Writer.put_first`.
        wake: Called when there is something to keep an eye on; see `log_ready`.

    Attributes:
        lost: Records whose values could not be read.
    """

    def __init__(
        self,
        most: int,
        put: Callable[[deque[bytes | Block]], None],
        wake: Callable[[], None],
    ) -> None:
        self.lost = 0
        self._most = most
        self._put = put
        self._wake = wake
        self._held: deque[Held] = deque()
        self._errors: list[tuple[int, Exception]] = []  # and the thread whose record it was
        self._lock = threading.RLock()  # re-entrant for signal handlers
        self._nested = 0  # how many calls of the thread with the lock are logging

    def add(
        self,
        arrays: list[Any],
        make: Callable[[], Iterable[bytes | Block]],
        records: int = 1,
        step: int | None = None,
    ) -> None:
        """Log this after what was added before, and after at most `most` further calls.

        Raises:
            ValueError: If an earlier record of this thread could not be read. This one is held
                nevertheless.
        """
        thread = threading.get_ident()
        self._held.append(Held(arrays, make, records, thread, step))
        if len(self._held) <= self._most:  # else something is logged, which wakes too
            self._wake()
        self._log_while(
            lambda head: (
                head.await_values(None)
                if head.thread == thread or self._is_full()
                else head.is_ready()
            ),
            keep=self._most,
        )
        self.raise_error(thread)

    def log_ready(self) -> bool:
        """Log what is ready, waiting for nothing; whether something is left that isn't."""
        self._log_while(Held.is_ready)
        return bool(self._held)

    def log_all(self, deadline: float | None) -> bool:
        """Wait for all values, and log; False if the deadline came first."""
        return self._log_while(lambda head: head.await_values(deadline), nested=_MOST_NESTED)

    def hold_no_more(self) -> None:
        """From now on, `add` logs at once."""
        self._most = 0

    def raise_error(self, thread: int | None = None) -> None:
        """Raise why a record was lost, if one was since the last time.

        Args:
            thread: Only if this thread wrote it. None means any.

        Raises:
            ValueError: Says which record, which metric, and why.
        """
        for entry in list(self._errors):
            if thread in (None, entry[0]):
                self._errors.remove(entry)
                raise entry[1]

    @property
    def queued(self) -> int:
        """How many records are held back."""
        return sum(held.records for held in list(self._held))

    def _is_full(self) -> bool:
        """Whether this thread is to wait for others' records, lest too many be held."""
        if len(self._held) < _MANY:
            return False
        # JAX's threads, on which callbacks run, are dummies to Python; they may wait for themselves
        ours = (BackgroundThread, threading._DummyThread)  # noqa: SLF001 - has no public name
        return not isinstance(threading.current_thread(), ours)

    def _log_while(self, is_ready: Callable[[Held], bool], keep: int = 0, nested: int = 0) -> bool:
        """Log the oldest until `keep` are left, or one isn't ready."""
        while len(self._held) > keep:
            try:
                head = self._held[0]
            except IndexError:  # another thread was faster
                continue
            if not (is_ready(head) and self._log_head(head, nested)):
                return False
        return True

    def _log_head(self, head: Held, nested: int) -> bool:
        """Log it, unless that was done meanwhile; False within more than `nested` such calls."""
        if not isinstance(threading.current_thread(), BackgroundThread):
            with self._lock:
                return self._log_with_lock(head, nested)
        # Whoever has the lock may wait for room in the queue, which a thread of ours has to make.
        if not self._lock.acquire(blocking=False):
            return False
        try:
            return self._log_with_lock(head, nested)
        finally:
            self._lock.release()

    def _log_with_lock(self, head: Held, nested: int) -> bool:
        if self._nested > nested:
            return False
        if self._held and self._held[0] is head:
            self._nested += 1
            try:
                self._put_items(head)
            finally:
                self._nested -= 1
        return True

    def _put_items(self, head: Held) -> None:
        try:
            items = head.items()
        except (TypeError, ValueError) as error:
            if head.can_be_made():
                raise  # from a signal handler
            self._lose(head, head.records, error)
            return
        while items:
            item = items[0]
            try:
                self._put(items)
            except ClosedError as error:
                self._lose(head, records_of(item) + sum(map(records_of, items)), error)
                return
        self._remove(head)

    def _remove(self, head: Held) -> bool:
        """Hold it no more; whether it was held."""
        try:
            self._held.remove(head)
        except ValueError:  # a signal handler was faster
            return False
        return True

    def _lose(self, head: Held, records: int, error: Exception) -> None:
        if not self._remove(head):
            return
        self.lost += records
        which = "an earlier record" if head.step is None else f"the record of step {head.step}"
        lost = ValueError(f"{which} is lost: {error}")
        lost.__cause__ = error
        self._errors.append((head.thread, lost))


def hold(record: Any) -> tuple[dict[str, Any] | Packed, list[Any]]:
    """Take a snapshot of a record, but for its device values, whose copies to the host it starts.

    Returns:
        The record, for `host_record()` to finish; and the arrays that this has to read.

    Raises:
        TypeError: For whatever is wrong with the record, as `host_record()` and `encode()` do.
        ValueError: Likewise.
    """
    if not isinstance(record, Mapping | Packed):
        return host_record(record), []
    arrays: list[Any] = []
    try:
        held = _hold(record, arrays)
    except UnloggableError as error:
        raise error.public() from error.__cause__
    except RecursionError:
        return host_record(record), []  # raises, and says what is nested too deeply
    start_copies(arrays)
    if isinstance(held, dict):
        encode(_host_part(held))
    return held, arrays


def _hold(value: Any, arrays: list[Any]) -> Any:
    """The value with nothing in it that can change, save by donation; gathers its device arrays."""
    if isinstance(value, Packed):
        check_single(value)
        _hold(value.words, arrays)
        return value
    if is_on_device(value):
        check_readable(value)
        arrays.append(value)
        return value
    if not isinstance(value, Mapping | list | tuple):
        return host_value(value)
    kept: dict[Any, Any] = {}
    name: Any = None
    try:
        for name, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            kept[name] = _hold(inner, arrays)
    except UnloggableError as error:
        error.path.append(str(name))
        raise
    return kept if isinstance(value, Mapping) else list(kept.values())


def _host_part(value: Any) -> Any:
    """What is to be read later left out."""
    if isinstance(value, dict):
        return {name: _host_part(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_host_part(inner) for inner in value]
    return None if isinstance(value, Packed) or is_on_device(value) else value

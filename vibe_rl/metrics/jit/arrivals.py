"""Records that arrive from compiled code: the host's end of `emit` and `scan`."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vibe_rl.metrics.jit.messages import Message, Words
from vibe_rl.metrics.threads import BackgroundThread

_log = logging.getLogger("vibe_rl")

# Without a time-out: how long to wait for a computation from which nothing arrives. Some take long
# from one record to the next, and what hangs for good would keep the interpreter from ending too.
PATIENCE_S = 600.0


class Arrivals:
    """Takes what callbacks bring, and waits for callbacks still under way.

    A compiled function holds on to this for as long as it lives, but through it to no logger.

    Args:
        path: The metrics file, for messages.
        log: A method of the logger: called with a message, its words, and their number of records.

    Attributes:
        late: Records that arrived after the logger was closed, and are not logged.
        lost: Records that could not be read, or logged.
        traced: Whether any function was traced that logs here.
        chunks: What `scan` has made of functions, for as long as they live.
    """

    def __init__(self, path: Path, log: Callable[[Message, Words, int], None]) -> None:
        self.late = self.lost = 0
        self.traced = False
        self.chunks: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
        self._path = path
        self._log = weakref.WeakMethod(log)
        self._closed = False
        self._alive = time.monotonic()
        self._lock = threading.Lock()

    def receive(self, message: Message, *pieces: Any) -> None:
        """Log what a callback brings. Never raises: that would end the computation.

        Args:
            message: How to read it.
            pieces: The words: arrays of JAX, but a JAX operation in a callback can deadlock.
        """
        self._alive = time.monotonic()
        records = message.most
        try:
            # Copied, for it is JAX's.
            words = np.array(pieces[0]) if len(pieces) == 1 else np.concatenate(pieces)
            records = message.count(words)
            log = self._log()
            if log is None or self._closed:
                self._count_late(records)
            elif records:
                log(message, words, records)
        except Exception as error:  # noqa: BLE001 - see above
            if self._closed:
                self._count_late(records)
            else:
                self._count_lost(records, error)

    def check_open(self) -> None:
        """Raise if a function is traced too late."""
        if self._closed:
            raise ValueError(
                f"the logger of {self._path} is closed; a function that logs is traced before that"
            )

    def close(self) -> None:
        """Take no more: the logger is closed."""
        self._closed = True

    def after_fork(self) -> None:
        """In a forked child: wait for nothing, for computations under way are the parent's."""
        self.traced = False
        self._lock = threading.Lock()

    def wait(self, deadline: float | None) -> bool:
        """Wait for the callbacks of all computations that this thread has dispatched.

        Args:
            deadline: On `time.monotonic()`'s clock. None waits as long as it takes, except for
                computations from which nothing arrives for ten minutes.

        Returns:
            Whether they have all arrived.
        """
        tokens = _tokens() if self.traced else []
        if tokens is None:
            with contextlib.suppress(Exception):  # of callbacks that aren't ours
                sys.modules["jax"].effects_barrier()
            return True
        if not tokens:
            return True
        finished = threading.Event()

        def block() -> None:
            for token in tokens:
                try:
                    token.block_until_ready()
                except Exception as error:  # noqa: BLE001 - of a callback that isn't ours
                    _log.debug("while waiting for callbacks: %s", error)
            finished.set()

        try:
            BackgroundThread(block, "wait for callbacks").start()
        except RuntimeError:  # at the interpreter's exit; JAX waits there too
            block()
        since = time.monotonic()
        while True:
            limit = deadline or max(since, self._alive) + PATIENCE_S
            left = limit - time.monotonic()
            if finished.wait(max(left, 0)):
                return True
            if left <= 0:
                _log.error(
                    "%s: a compiled function that may log to it has not ended in time", self._path
                )
                return False

    def _count_lost(self, records: int, error: Exception) -> None:
        with self._lock:
            first = not self.lost
            self.lost += records
        if first:
            _log.error(
                "%s: records from a compiled function are lost; further ones are only counted",
                self._path,
                exc_info=error,
            )

    def _count_late(self, records: int) -> None:
        with self._lock:
            first = records and not self.late
            self.late += records
        if first:
            _log.warning(
                "%s: a compiled function goes on logging here, but the logger is closed: its "
                "records are only counted. A compiled function logs to the logger it was traced "
                "with; for another logger, compile it anew. To log all of a computation, wait for "
                "it (jax.block_until_ready) before close()",
                self._path,
            )


def is_tracing() -> bool:
    """Whether JAX is tracing or transforming a function on this thread."""
    # Private, and without a public counterpart: that a value is no tracer doesn't tell, for a
    # record inside jit may hold constants only.
    is_clean = _private("core", "trace_state_clean")
    if is_clean is not None:
        return not is_clean()
    # Next best: what becomes of a constant. It misses `grad` and `vmap` outside of `jit`.
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(jax.numpy.add(0, 0), jax.core.Tracer)


def _tokens() -> list[Any] | None:
    """What JAX keeps for the computations with callbacks that this thread has dispatched.

    None if this version of JAX keeps it elsewhere.
    """
    # Private: the public `jax.effects_barrier()` has no time-out, raises the errors of other
    # callbacks, and called on another thread waits for nothing.
    tokens = _private("dispatch", "runtime_tokens")
    try:
        return [*tokens.current_tokens.values(), *tokens.output_runtime_tokens.values()]
    except AttributeError:
        return None


def _private(module: str, name: str) -> Any:
    """What one of JAX's own modules calls so; None if there is no such thing."""
    return getattr(sys.modules.get(f"jax._src.{module}"), name, None)

"""`MetricsLogger`: the life of a logger, top to bottom."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from vibe_rl.metrics.alarms import Alert, AlertBackend, NonFiniteAlarm
from vibe_rl.metrics.append import MetricsFile, NoFile, process_path, process_paths
from vibe_rl.metrics.backends.protocol import LogBackend
from vibe_rl.metrics.deferred import Deferred, hold
from vibe_rl.metrics.exit_hooks import call_at_exit
from vibe_rl.metrics.feed.exit_watch import exit_watch
from vibe_rl.metrics.feed.feeds import Feeds
from vibe_rl.metrics.intake import Intake
from vibe_rl.metrics.jit.arrivals import Arrivals
from vibe_rl.metrics.jit.emit_and_scan import LogsInsideJit
from vibe_rl.metrics.jit.messages import Message, Words
from vibe_rl.metrics.jit.packing import Packed
from vibe_rl.metrics.lines import Position
from vibe_rl.metrics.settings import (
    Process,
    check_interval,
    check_words,
    checked_backends,
    checked_count,
    local_path,
)
from vibe_rl.metrics.stats import LoggerStats
from vibe_rl.metrics.supersede import retire, supersede
from vibe_rl.metrics.threads import BackgroundThread
from vibe_rl.metrics.writer import Overflow, Writer
from vibe_rl.processes import process_count, process_index
from vibe_rl.run_dir import RunDir

_log = logging.getLogger("vibe_rl")

# How long an exit that is interrupted still waits for the file.
_LAST_S = 2.0


class MetricsLogger(LogsInsideJit):
    """Logs records to a JSON Lines file and to backends, without making the caller wait for them.

    `write()` turns a record into a line on the caller's thread and queues it. One thread appends
    the lines to the file; each backend follows the file on a thread of its own. `close()`, leaving
    the `with` block, and the interpreter's exit write out everything that was accepted.

    Any number of threads may use a logger at once, and several loggers may append to one file. In
    a forked child, `write()` appends at once, and backends stay the parent's.

    Args:
        path: The metrics file, made with its directories if missing and appended to if it exists;
            or a `RunDir`, meaning its `log_path()`.
        backends: What else gets every record; see `LogBackend`.
        queue_size: The most records that may wait for the writer thread. Whatever this is, at most
            256 MiB wait, or one record.
        overflow: What `write()` does when the queue is full: `"block"` waits, `"drop_oldest"` and
            `"drop_newest"` never wait and count what they drop in `stats`. Each warns once.
        flush_interval: Seconds between two appends to the file while records come in, and so the
            most that a killed process loses of what was queued.
        defer: How many records are held back, so that `write()` needn't wait for the step that was
            just dispatched: it starts the copies of its JAX values to the host, and reads those of
            the record of so many calls ago. Order and `wall_time` stay as they are. With 1, the
            device computes step n + 1 while the host logs step n, so don't donate a value of
            step n to step n + 1: it has to be there until it is read. `flush()` and `close()` log
            what is held, an idle logger what is ready.
        process: Which processes of a `jax.distributed` job log. `"primary"`: the first one; on the
            others, `write()` does nothing, not even read values that other processes hold a part
            of. `"all"`: each one, to a file of its own (`metrics.p3.jsonl`), with its number in
            each record's field `process`; the readers merge the files. Make the logger after
            `jax.distributed.initialize()`.
        alert: A check of your own: called with each record on a thread that `write()` doesn't wait
            for, it returns what is wrong, or None. That is logged as a warning, once in the same
            words. (The first non-finite value of each metric is warned of in any case.)
        resume_step: The step of the checkpoint that the run goes on from. What the file holds past
            it, from an attempt that was killed, makes way for what is logged anew: it is moved to
            `metrics.superseded.jsonl`. A record without a step shares the fate of the one before.
            The first process of a job does so also in files that none of its processes writes.

    Raises:
        TypeError: If a backend lacks `log` or `close`.
        ValueError: If another argument is out of its range, or the path is a URL.
        OSError: If the path is a directory or can't be written; or if records would have to make
            way, but another logger has the file open.

    Examples:
        >>> with MetricsLogger("runs/example/metrics.jsonl") as logger:
        ...     for step in range(3):
        ...         logger.write({"step": step, "loss": 1.0 / (step + 1)})
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | RunDir,
        backends: Sequence[LogBackend] | None = None,
        *,
        queue_size: int = 65_536,
        overflow: Overflow = "block",
        flush_interval: float = 0.1,
        defer: int = 0,
        process: Process = "primary",
        alert: Alert | None = None,
        resume_step: int | None = None,
    ) -> None:
        queue_size = checked_count("queue_size", queue_size, "records")
        defer = checked_count("defer", defer, "records", least=0)
        if resume_step is not None:
            resume_step = checked_count("resume_step", resume_step, "steps", least=0)
        check_words(overflow, process)
        check_interval(flush_interval)
        checked = checked_backends(backends)
        base = path = local_path(path)
        written = {base}  # by this job's processes
        number = None  # what each record says
        if process == "all" and process_count() > 1:
            written = {process_path(base, each) for each in range(process_count())}
            number = process_index()
            path = process_path(base, number)
        if alert is not None:
            checked = [*checked, AlertBackend(alert, path)]
        self._start_ns = time.monotonic_ns()
        self._closed = False  # whether write() refuses
        self._outcome: bool | None = None  # of close(), once it is through
        self._has_warned = False  # of a close() from within a backend
        self._logs = process == "all" or process_index() == 0
        self._unused = [] if self._logs else checked
        if self._logs and resume_step is not None:
            supersede(path, resume_step)
            if process_index() == 0:  # also what a job of more processes, or fewer, has left
                for each in {base, *process_paths(base)} - written:
                    retire(each, resume_step)
        self._file = MetricsFile(path) if self._logs else NoFile(path)
        self._arrivals = Arrivals(self._file.path, self._log_arrived)
        start = Position(self._file.start_byte, self._file.start_ordinal)
        try:
            self._feeds = Feeds(checked if self._logs else [], path, start)
        except BaseException as error:
            self._file.close(type(error).__name__)
            raise
        self._deferred: Deferred | None = None
        self._writer = Writer(
            NonFiniteAlarm(self._file).append,
            self._feeds.wake,
            queue_size=queue_size,
            overflow=overflow,
            flush_interval=flush_interval,
            on_idle=self._log_ready,
        )
        self._intake = Intake(self._writer, queue_size, number)
        if defer:
            self._deferred = Deferred(defer, self._writer.put_first, self._writer.wake)
        # Last of all: exit hooks run in reverse order, and backends register theirs when made.
        self._forget_exit = call_at_exit(self._close_at_exit)
        _live.add(self)

    def write(self, record: Mapping[str, Any] | Packed) -> None:
        """Log one record: a snapshot of its values at this moment.

        Waits for JAX arrays that are still being computed (with `defer`, for those of an earlier
        record), and for nothing else while the queue has room. `wall_time`, the seconds since this
        logger was made, is added if absent.

        Args:
            record: Names to values: numbers, text, booleans, None; JAX or NumPy arrays of any
                shape (of one element: a scalar); paths, enums, dates; lists and mappings of these;
                what `pack` returned. Or the whole record as `pack` returned it.

        Raises:
            TypeError: If the record is no mapping, a name no string, or a value of a kind that
                the file can't hold; names the metric. Nothing is logged then.
            ValueError: If a value can't be read (a donated buffer, an array that other processes
                hold a part of) or written (an integer of more than 64 bits); or if the logger is
                closed. With `defer`, also if a value of a record of so many calls ago was donated
                meanwhile: that record is lost, this one and all others are logged.
        """
        if self._closed:
            raise ValueError(f"the logger of {self.path} is closed; write before close()")
        if not self._logs:
            return
        if self._deferred is None:
            elapsed_us = (time.monotonic_ns() - self._start_ns) // 1000  # without a call
            self._writer.put(self._intake.item(record, elapsed_us))
            return
        item = functools.partial(self._intake.item, elapsed_us=self._elapsed_us())
        held, arrays = hold(record)
        step = held.get("step") if isinstance(held, dict) else None
        self._deferred.add(arrays, lambda: [item(held)], step=step if type(step) is int else None)

    def write_batch(self, columns: Mapping[str, Any] | Packed) -> None:
        """Log many records at once, from arrays with one common leading axis.

        The file gets the lines that `write()` of each row would have put there, in less time (the
        manual's *What it costs* has the records a second of both): each array crosses to the host
        in one transfer, and the lines are made on the writer's thread. A snapshot, as with
        `write()`.

        Args:
            columns: Names to columns of one length (JAX or NumPy arrays, lists, ranges), to single
                values that every record repeats, or to a mapping of these. Row `i` of an array of
                several axes is record `i`'s value. `wall_time` is this call's if absent. Or what
                `pack` returned, once `scan` or `vmap` has stacked it.

        Raises:
            TypeError: If `columns` is no mapping, a name no string, or a value of a kind that the
                file can't hold; names the metric. Nothing is logged then.
            ValueError: If no column is given, or columns differ in length; if a value can't be
                read or written; or if the logger is closed.

        Examples:
            >>> with MetricsLogger("runs/example/metrics.jsonl") as logger:
            ...     logger.write_batch({"step": range(3), "loss": np.ones(3), "phase": "warm-up"})
        """
        if self._closed:
            raise ValueError(f"the logger of {self.path} is closed; write before close()")
        if not self._logs:
            return
        length, blocks = self._intake.blocks(columns, self._elapsed_us())
        if self._deferred is not None:  # after what is held
            made = list(blocks)
            self._deferred.add([], lambda: made, length)
        else:
            self._intake.put_blocks(blocks)

    def flush(self, timeout: float | None = None, *, backends: bool = True) -> bool:
        """Wait until all that was written is in the file and was logged by every backend.

        Args:
            timeout: The most seconds to wait. None waits as long as it takes, except for a backend
                that shows no sign of life for 30 s, and for a computation that this thread has
                started, and from which nothing arrives for ten minutes.
            backends: Whether to wait for the backends too. The file alone takes no longer
                than an append: enough before a checkpoint, whose run will not log this again.

        Returns:
            Whether everything has arrived everywhere.

        Raises:
            OSError: If the file can't be appended to; says how many records have not landed. They
                are kept, and tried again.
            ValueError: If a value of a record held back by `defer` could not be read; all else is
                done.
        """
        if isinstance(threading.current_thread(), BackgroundThread):
            return False  # a backend or a logging handler asks: this thread would await itself
        deadline = None if timeout is None else time.monotonic() + timeout
        arrived = self._arrivals.wait(deadline)
        read = self._log_held(deadline)
        landed = self._writer.flush(_left(deadline))
        delivered = landed and (not backends or self._feeds.deliver(deadline))
        if self._deferred is not None:
            self._deferred.raise_error()
        return arrived and read and delivered

    def close(self, timeout: float | None = None) -> bool:
        """Write out and deliver everything, close the backends, and release the file.

        Closing again does nothing, unless time ran out before all was in the file: then it goes on
        with that. `write()` from now on raises `ValueError`. A backend can't close the logger that
        calls it: this returns False then, with a warning.

        Args:
            timeout: The most seconds to wait. None waits as long as it takes, except for a backend
                that shows no sign of life for 30 s, and for a computation that this thread has
                started, and from which nothing arrives for ten minutes.

        Returns:
            Whether everything has arrived everywhere. What has not is said in the log.

        Raises:
            OSError: If the file can't be appended to; says how many records are lost.
            ValueError: If a value of a record held back by `defer` could not be read; all else is
                done.
        """
        return self._close(timeout, how="closed")

    @property
    def path(self) -> Path:
        """The metrics file; with `process="all"`, this process's own."""
        return self._file.path

    @property
    def stats(self) -> LoggerStats:
        """What was written, dropped and delivered up to now."""
        writer = self._writer
        return LoggerStats(
            written=writer.written,
            queued=writer.queued + (self._deferred.queued if self._deferred else 0),
            dropped=writer.dropped
            + self._arrivals.lost
            + (self._deferred.lost if self._deferred else 0),
            late=self._arrivals.late,
            high_water=writer.high_water,
            backends=self._feeds.stats,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            self._close(how=type(error).__name__)
        except (OSError, ValueError) as lost:  # must not hide the error that ended the block
            _log.error("%s: %s", self.path, lost)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        stats = self.stats
        counts = f"{stats.written} written, {stats.queued} queued, {stats.dropped} dropped"
        return f"<MetricsLogger {str(self.path)!r}, {state}, {counts}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a MetricsLogger can't be copied or sent to another process; make one there on the "
            "same path: several loggers may append to one file"
        )

    def _close(self, timeout: float | None = None, *, how: str) -> bool:
        # Each step may be repeated, so that after a Ctrl-C in one, exit goes on from there.
        if self._outcome is not None:
            return self._outcome
        thread = threading.current_thread()
        if isinstance(thread, BackgroundThread) and (
            thread.owner is self._writer or thread.owner in self._feeds
        ):  # which this would wait for, and which waits for us
            if not self._has_warned:
                self._has_warned = True
                _log.warning(
                    "%s: not closed from within a backend's call; close it on the thread that "
                    "writes",
                    self.path,
                )
            return False
        deadline = None if timeout is None else time.monotonic() + timeout
        # A part of the time is for what has arrived.
        arrived = self._arrivals.wait(None if timeout is None else time.monotonic() + 0.9 * timeout)
        self._closed = True
        self._arrivals.close()
        if self._deferred is not None:
            self._deferred.hold_no_more()
        read = self._log_held(deadline)
        lost: OSError | None = None
        landed = False
        try:
            landed = self._writer.close(_left(deadline))
        except OSError as error:
            lost = error
        delivered = self._feeds.deliver(deadline, close=True, how=how)
        while self._unused:
            self._unused.pop().close()
        complete = landed and delivered and arrived and read
        if landed or lost:
            self._file.close(how)
            self._outcome = complete
        else:  # until another close() finds them written
            _log.error("%s: %d records were not written in time", self.path, self._writer.queued)
        self._forget_exit()
        if lost:
            raise lost
        if self._deferred is not None:
            self._deferred.raise_error()
        return complete

    def _close_at_exit(self, error: BaseException | None) -> None:
        if isinstance(error, SystemExit):
            exit_watch.note(error.code)
        is_exit = error is None or isinstance(error, SystemExit)
        try:
            self._close(how="exit" if is_exit else type(error).__name__)
        except BaseException:
            # A Ctrl-C ends the wait for a device or a backend; but nobody comes after this, so what
            # is queued still has a moment to land.
            self._log_ready()
            with contextlib.suppress(OSError):
                self._writer.close(_LAST_S)
            raise

    def _log_arrived(self, message: Message, words: Words, records: int) -> None:
        """Log what a compiled function sends: at once, for what `defer` holds may be its result."""
        if self._logs:
            self._intake.put_message(message, words, records, self._elapsed_us())

    def _elapsed_us(self) -> int:
        return (time.monotonic_ns() - self._start_ns) // 1000

    def _log_held(self, deadline: float | None) -> bool:
        """Log what is held back; False if its values were not there in time."""
        if self._deferred is None or self._deferred.log_all(deadline):
            return True
        _log.error(
            "%s: %d records wait for values that are still being computed",
            self.path,
            self._deferred.queued,
        )
        return False

    def _log_ready(self) -> bool:
        """Log what is held back and ready; whether there is more."""
        return self._deferred is not None and self._deferred.log_ready()

    def _after_fork(self) -> None:
        self._deferred = None
        self._arrivals.after_fork()
        self._feeds.after_fork()
        self._writer.after_fork()
        self._file.after_fork()


_live: weakref.WeakSet[MetricsLogger] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for logger in list(_live):
        logger._after_fork()  # noqa: SLF001 - of this module


os.register_at_fork(after_in_child=_after_fork_in_child)


def _left(deadline: float | None) -> float | None:
    """The seconds until then, at least 0."""
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)

"""The process of an isolated backend: `python -m vibe_rl.metrics.isolation.child FD ARGUMENTS...`.

It builds the backend, drives it with the feed that a thread would run, and ends with its parent:
the connection breaks however that dies, and what is in the file by then is still delivered.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
import os
import pickle
import signal
import stat
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from vibe_rl.metrics.backends.protocol import is_backend, name_of
from vibe_rl.metrics.feed import tickets
from vibe_rl.metrics.feed.cursor import identity_of
from vibe_rl.metrics.feed.feed import Feed
from vibe_rl.metrics.isolation.isolated import Status
from vibe_rl.metrics.isolation.priority import stop_yielding, yield_to_others
from vibe_rl.metrics.lines import Position
from vibe_rl.metrics.threads import BackgroundThread
from vibe_rl.processes import stand_in_for

# How often the file is looked at.
_POLL_S = 0.1
# A parent that dies in the middle of a run leaves a run that failed.
_CRASHED = 1
# How long threads and exit hooks that the backend leaves behind may keep the process.
_LEFTOVERS_S = 3.0


class Child:
    """Answers the parent, on the main thread, while a feed drives the backend on its own.

    Args:
        connection: To the parent.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._telling = threading.Lock()
        self._feed: Feed | None = None
        self._path = Path()
        self._size = -1
        self._is_orphan = False
        self._session = 0  # the trainer's
        self._told: Status | None = None

    def run(self) -> bool:
        """Serve until the parent has closed the backend, or is gone; False if the backend hangs."""
        logger = logging.getLogger("vibe_rl")
        logger.addHandler(_ToParent(self))
        logger.propagate = False
        try:
            self._session, index, call = self._connection.recv()
            stand_in_for(index)  # for backends that only the first process of a job has
            make, args, kwargs = pickle.loads(call)  # noqa: S301 - from the parent, over a pipe
            self._backend = make(*args, **kwargs)
            if not is_backend(self._backend):
                raise TypeError(  # noqa: TRY301 - as any other error of construction
                    f"a backend is an object with methods log and close, not {self._backend!r}"
                )
            identity_of(self._backend, 0)  # if it raises, then now
            values = public_values(self._backend)
        except EOFError:
            return True
        except BaseException as error:  # noqa: BLE001 - the parent raises it
            self.send("error", _portable(error))
            return True
        # Only now, for the parent waits for the backend to be built.
        yield_to_others(self._session)
        self.send("ready", values)
        try:
            while self._serve():
                self._tell()
        except EOFError:
            return self._end()
        return True

    def say(self, level: int, message: str) -> None:
        """Have the parent log a message; without a parent, stderr has to do."""
        if self._is_orphan:
            with contextlib.suppress(OSError):
                sys.stderr.write(f"{message}\n")
        self.send("log", level, "%s", message)

    def send(self, kind: str, *content: Any) -> None:
        """Tell the parent something, if there is one."""
        with self._sending, contextlib.suppress(OSError):
            self._connection.send((kind, *content))

    def _serve(self) -> bool:
        """Answer one message, or look at the file; False once the backend is closed."""
        try:
            if not self._connection.poll(_POLL_S):
                self._look_at_file()
                return True
            kind, *content = self._connection.recv()
        except OSError:  # a connection that breaks, rather than ends
            raise EOFError from None
        match kind:
            case "follow":
                self._follow(*content)
            case "ask":
                ticket, close, exit_code = content
                if self._feed:
                    self._feed.ask(close=close, exit_code=exit_code, ticket=ticket)
                if close:  # the trainer waits for us
                    stop_yielding(self._session)
            case "get" | "log" | "flush" | "close":
                self._answer(kind, *content)
            case "end":
                self.send("values", public_values(self._backend))
                return False
        return True

    def _follow(self, path: Path, start: Position, name: str, nth: int) -> None:
        self._path = path
        try:
            self._feed = Feed(
                self._backend, path, start, name=name, nth=nth, paced=False, on_settled=self._tell
            )
        except Exception as error:  # noqa: BLE001 - of the file, or what the backend raises now
            self.say(logging.ERROR, f"{name} can't follow {path}: {error}")
            self._close()
            self.send("status", Status(math.inf, 0.0, 0, 0, start, start, is_refused=False))

    def _look_at_file(self) -> None:
        with contextlib.suppress(OSError):  # it is gone, or about to be replaced
            size = self._path.stat().st_size
            if self._feed and size != self._size:
                self._size = size
                self._feed.wake()

    def _answer(self, kind: str, request: int, *content: Any) -> None:
        value: Any = None
        try:
            if kind == "log":
                self._backend.log(*pickle.loads(*content))  # noqa: S301 - from the parent
            elif kind == "flush":
                getattr(self._backend, "flush", lambda: None)()
            elif kind == "close":
                stop_yielding(self._session)
                self._backend.close()
            else:
                value = getattr(self._backend, *content)
                if callable(value):
                    raise AttributeError(  # noqa: TRY301 - as any other
                        f"{content[0]}() can't be called in another process; only attributes that "
                        "are values can be read"
                    )
                pickle.dumps(value)
        except BaseException as error:  # noqa: BLE001 - the parent raises it
            self.send("answer", request, None, _portable(error))
        else:
            self.send("answer", request, value, None)

    def _tell(self) -> None:
        with self._telling:  # the feed's thread tells too: no status shall overtake a later one
            feed = self._feed
            if feed is None:
                return
            stats = feed.stats
            settled, delivered = feed.settled
            status = Status(
                settled,
                delivered,
                stats.logged,
                stats.failed,
                feed.position,
                feed.saved,
                feed.is_refused,
            )
            if status != self._told:
                self._told = status
                self.send("status", status)

    def _end(self) -> bool:
        """Deliver what the file holds, for a parent that is gone; False if the backend hangs."""
        self._is_orphan = True
        _leave_pipes()
        stop_yielding(self._session)
        if self._feed is None:
            return self._close()
        exit_code = None if self._feed.closing else _CRASHED
        return self._feed.wait(self._feed.ask(close=True, exit_code=exit_code), None)

    def _close(self) -> bool:
        """Close the backend where no feed does; False if it hangs."""
        closing = BackgroundThread(self._backend.close, "close")
        closing.start()
        closing.join(tickets.PATIENCE_S)
        return not closing.is_alive()


class _ToParent(logging.Handler):
    """Has the parent log what is logged here."""

    def __init__(self, child: Child) -> None:
        super().__init__()
        self._child = child

    def emit(self, record: logging.LogRecord) -> None:
        self._child.say(record.levelno, self.format(record))


def public_values(backend: Any) -> dict[str, Any]:
    """A backend's public attributes that are plain values.

    Properties are code, which may take its time: only those that we need are read.
    """
    values: dict[str, Any] = {}
    for name in dir(backend):
        if not name.startswith("_"):
            value = inspect.getattr_static(backend, name, ...)
            if name in ("run_id", "exit_code"):
                with contextlib.suppress(Exception):
                    value = getattr(backend, name)
            if isinstance(value, str | int | float | None):
                values[name] = value
    return {**values, "name": name_of(backend)}


def _leave_pipes() -> None:
    """Keep no reader of the trainer's output waiting, such as `tee`, which lives as long as we."""
    for output in (1, 2):
        with contextlib.suppress(OSError):  # it is closed
            if stat.S_ISFIFO(os.fstat(output).st_mode):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, output)
                os.close(nowhere)


def _portable(error: BaseException) -> BaseException:
    """An error that can be pickled, with its traceback as a note."""
    error.add_note("In the process of its own:\n" + "".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - some can be pickled, but not read back
        plain = RuntimeError(f"{type(error).__name__}: {error}")
        plain.__notes__ = error.__notes__
        return plain
    return error


def main() -> None:
    """Run a child; the first argument is the parent's descriptor, the others are the parent's own.

    They are left in `sys.argv`, where W&B looks for a run's arguments.
    """
    descriptor = int(sys.argv.pop(1))
    # The parent decides when to end: a signal to its group, or to all of a job's processes, must
    # not cut the delivery short.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if not Child(Connection(descriptor)).run():
        os._exit(1)  # a thread hangs in the backend
    BackgroundThread(_end_soon, "end").start()


def _end_soon() -> None:
    """End the process, if a thread that the backend has left behind keeps it."""
    time.sleep(_LEFTOVERS_S)
    for output in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            output.flush()
    os._exit(0)


if __name__ == "__main__":
    main()

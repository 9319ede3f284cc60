"""A backend in a process of its own, which follows the metrics file without the trainer's GIL."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from vibe_rl.metrics.backends.inert import InertBackend, is_inert_here
from vibe_rl.metrics.backends.protocol import LogBackend, method_of
from vibe_rl.metrics.feed.feed import BackendStats
from vibe_rl.metrics.feed.tickets import PATIENCE_S, Patience, Tickets
from vibe_rl.metrics.isolation import hostpickle
from vibe_rl.metrics.isolation.child_process import ChildProcess
from vibe_rl.metrics.lines import Position
from vibe_rl.metrics.threads import BackgroundThread
from vibe_rl.processes import process_index

_log = logging.getLogger("vibe_rl")

# The pauses before a process that died is started again; after these it is given up.
_RESTART_S = (0.1, 1.0, 4.0)
# How long close() waits for a process to end that has closed its backend.
_END_S = 5.0
# In the outbox: what was asked for last, whatever that is when it is sent.
_ASK = ("ask",)


def isolated(
    backend: Callable[..., LogBackend], /, *args: Any, **kwargs: Any
) -> IsolatedBackend | InertBackend:
    """Build a backend in a process of its own, which shares no lock with the training loop.

    The process reads the metrics file itself, at the lowest priority that the system offers. It
    outlives the training process, however that ends, until it has delivered what the file holds and
    has closed the backend; threads that this leaves behind have 3 s more. If it dies itself, it is
    started again and goes on from its cursor.

    Args:
        backend: The backend's class (or a function that makes one), from a module that can be
            imported: not from the script that runs.
        *args: The backend's arguments. They are pickled; JAX arrays in them become NumPy's.
        **kwargs: The same.

    Returns:
        What to give to `MetricsLogger(backends=[...])`. The backend's attributes, such as `run_id`,
        can be read from it; once its process has ended, those of them that no property computes,
        and `run_id`.

    Raises:
        TypeError: If `backend` makes no backend, or something can't be sent to the other process.
        Exception: What the backend's construction raises, or its `identity`.

    Examples:
        >>> backend = isolated(TensorBoardBackend, log_dir="runs/example/logs")
        >>> with MetricsLogger("runs/example/logs/metrics.jsonl", backends=[backend]) as logger:
        ...     logger.write({"step": 64, "loss": 0.7})
    """
    if not callable(backend) or (
        isinstance(backend, type)
        and not (method_of(backend, "log") and method_of(backend, "close"))
    ):
        raise TypeError(
            "isolated() takes a backend's class, with methods log and close, and its arguments: "
            f"isolated(TensorBoardBackend, log_dir=...); not {backend!r}"
        )
    if is_inert_here(backend):
        return InertBackend()
    return IsolatedBackend(backend, args, kwargs)


class Status(NamedTuple):
    """What the process tells about its feed."""

    settled: float
    delivered: float
    logged: int
    failed: int
    position: Position
    saved: Position
    is_refused: bool


_NOTHING_YET = Status(0.0, 0.0, 0, 0, Position(0, 0), Position(0, 0), is_refused=False)


class IsolatedBackend(Tickets):
    """The trainer's end of a backend that `isolated()` has built.

    A logger treats it as the feed that it drives in the other process. Without a logger, it is a
    backend itself.
    """

    def __init__(
        self,
        backend: Callable[..., LogBackend],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        super().__init__(getattr(backend, "__name__", type(backend).__name__))
        self._call = hostpickle.dumps((backend, args, kwargs))
        self._index = process_index()
        self._directory = os.getcwd()  # noqa: PTH109 - what relative paths in the arguments mean
        self._following: tuple[Path, Position, str, int] | None = None
        self._status = _NOTHING_YET
        self._before = (0, 0)  # logged and failed, by processes that have died
        self._furthest = -1
        self._has_died = False
        self._failures = 0  # deaths in a row without progress
        self._values: dict[str, Any] = {}  # the backend's attributes, for when it has ended
        self._requesting = threading.RLock()  # a signal handler may come in between
        self._request_id = 0
        self._answers: queue.SimpleQueue[tuple[int, Any, BaseException | None]] = (
            queue.SimpleQueue()
        )
        self._outbox: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
        self._ask_waits = False  # in the outbox
        self._process = self._build()
        self.name = self._values["name"]
        self.takes_exit_code = "exit_code" in self._values
        _live.add(self)
        self._listener = BackgroundThread(self._listen, f"isolated {self.name}")
        self._listener.start()
        BackgroundThread(self._send, f"messages to {self.name}").start()

    # -- as a backend -------------------------------------------------------------------------

    def log(self, record: dict[str, Any], step: int | None = None) -> None:
        """Have the backend take one record. A logger does not call this.

        Args:
            record: The record.
            step: Its step.

        Raises:
            Exception: What the backend raises.
        """
        self._request("log", hostpickle.dumps((record, step)))

    def flush(self) -> None:
        """Deliver what the logger's file holds by now, and flush the backend if it can be flushed.

        Raises:
            TimeoutError: If it has not taken everything, and shows no sign of life for 30 s.
            Exception: Without a logger, what the backend raises.
        """
        if self._following:
            if not self.wait(self.ask(), None):
                raise TimeoutError(f"{self.name} has not taken everything")
        elif self._settled < math.inf:
            self._request("flush")

    def close(self) -> None:
        """Deliver what is left, close the backend, and end its process."""
        if self._following:
            self.wait(self.ask(close=True), None)
        elif self._settled < math.inf:
            self._request("close")
            self._finish()
            self._listener.join(_END_S)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if self._settled < math.inf:
            with contextlib.suppress(_NoAnswerError):
                return self._request("get", name)
        if name in self._values:
            return self._values[name]
        raise AttributeError(
            f"the process of {self.name} does not answer, and {name!r} is not known"
        )

    # -- as a feed ----------------------------------------------------------------------------

    def follow(self, path: Path, start: Position, *, name: str, nth: int) -> None:
        """Have the process deliver a metrics file's records; see `Feed` for the arguments.

        Raises:
            ValueError: If it follows a file already, or is closed.
        """
        if self.is_in_use:
            raise ValueError(f"{self.name} serves one logger, once; make one for each logger")
        self.name = name
        self._status = self._status._replace(position=start, saved=start)
        self._following = Path(os.path.abspath(path)), start, name, nth  # noqa: PTH100 - no links
        self._outbox.put(("follow", *self._following))

    @property
    def is_in_use(self) -> bool:
        """Whether it has been given to a logger, or is closed."""
        return self._following is not None or self._settled == math.inf

    @property
    def stats(self) -> BackendStats:
        """How far the backend is, as its process last said."""
        logged, failed = self._before
        behind = 0 if self.is_refused else self._size() - self._status.position.byte
        return BackendStats(
            logged + self._status.logged, failed + self._status.failed, max(behind, 0)
        )

    @property
    def position(self) -> Position:
        """How far the backend is in the file, as its process last said."""
        return self._status.position

    def wake(self) -> None:
        """Do nothing: the process looks at the file itself."""

    def ask(
        self, *, close: bool = False, exit_code: int | None = None, ticket: int | None = None
    ) -> int:
        """See `Tickets.ask`."""
        ticket = super().ask(close=close, exit_code=exit_code, ticket=ticket)
        if not self._ask_waits:
            self._ask_waits = True
            self._outbox.put(_ASK)
        return ticket

    def wait(self, ticket: int, deadline: float | None, patience: Patience | None = None) -> bool:
        """See `Tickets.wait`; after `close`, waits for the process to end too."""
        delivered = super().wait(ticket, deadline, patience)
        if self._settled == math.inf:
            left = _END_S if deadline is None else deadline - time.monotonic()
            self._listener.join(max(min(left, _END_S), 0))
        return delivered

    def after_fork(self) -> None:
        """In a forked child: let go of the connection, which tells that the parent is alive."""
        self._process.let_go()
        self._requesting = threading.RLock()  # which another thread of the parent's may hold
        self._settled = math.inf

    def _size(self) -> int:
        try:
            return self._following[0].stat().st_size if self._following else 0
        except OSError:
            return 0  # the file is gone

    # -- the process --------------------------------------------------------------------------

    def _build(self) -> ChildProcess:
        run_id = self._values.get("run_id")
        process = ChildProcess(
            self.name,
            self._call,
            self._directory,
            run_id=run_id if isinstance(run_id, str) else None,
            index=self._index,
        )
        self._values = process.values
        return process

    def _send(self) -> None:
        """Send messages: not on the caller's thread, for a process that is stopped reads none."""
        while (message := self._outbox.get()) is not None:
            if message is _ASK:
                self._ask_waits = False  # first, so that what is asked from now on is sent too
                message = "ask", self._asked, self._closing, self._exit_code
            self._process.send(*message)

    def _listen(self) -> None:
        try:
            self._hear_until_the_end()
        finally:
            self._outbox.put(None)

    def _hear_until_the_end(self) -> None:
        """Hear what the process has to say, and start it again if it dies."""
        while True:
            try:
                kind, *content = self._process.receive()
            except EOFError:
                code = self._process.wait()
                if self._settled == math.inf or not self._start_again(code):
                    return
                continue
            match kind:
                case "log":
                    _log.log(*content)
                case "status":
                    self._update(*content)
                case "answer":
                    self._answers.put(tuple(content))
                case "values":
                    self._values = content[0]

    def _update(self, status: Status) -> None:
        self._status = status
        self.is_refused = status.is_refused
        self._alive = time.monotonic()
        # A process that dies at the same record each time makes no progress, nor does one that
        # dies of what it is asked for at the end of the file.
        is_idle = status.position.byte == self._size() and self._asked <= self._settled
        if status.position.byte > self._furthest or is_idle:
            self._failures = 0
        self._furthest = max(self._furthest, status.position.byte)
        self._settle(status.delivered, delivered=True)
        if status.settled == math.inf:
            self._finish()
        self._settle(status.settled, delivered=False)

    def _finish(self) -> None:
        """Let the process end."""
        self._outbox.put(("end",))
        self._settled = math.inf

    def _start_again(self, code: int) -> bool:
        """Replace a process that died; False if it is given up."""
        status = self._status
        logged, failed = self._before
        # What came after the saved position is delivered again.
        repeated = status.position.ordinal - status.saved.ordinal
        self._before = max(logged + status.logged - repeated, 0), failed + status.failed
        self._status = _NOTHING_YET._replace(position=status.saved, saved=status.saved)
        level = logging.INFO if self._has_died else logging.ERROR
        self._has_died = True
        _log.log(level, "the process of %s ended with %d; it is started again", self.name, code)
        while self._failures < len(_RESTART_S):
            time.sleep(_RESTART_S[self._failures])
            self._failures += 1
            try:
                process = self._build()
            except Exception as error:  # noqa: BLE001 - whatever its construction raises now
                _log.error("%s can't be started again: %s", self.name, error)
                continue
            self._answer_nobody()
            self._process = process
            if self._following:
                path, _, name, nth = self._following
                self._outbox.put(("follow", path, status.saved, name, nth))
                if self._asked > self._settled:
                    self._outbox.put(_ASK)
            return True
        _log.error(
            "%s is given up: its process died %d times in a row. `vibe-rl sync` delivers the rest",
            self.name,
            self._failures,
        )
        self._settle(math.inf, delivered=False)
        self._answer_nobody()
        return False

    def _answer_nobody(self) -> None:
        """Let go of who waits for an answer of the process that died."""
        self._answers.put((0, None, _NoAnswerError()))

    def _request(self, kind: str, *content: Any) -> Any:
        with self._requesting:
            self._request_id += 1
            mine, answered = self._request_id, -1
            while not self._answers.empty():  # nobody has waited for these
                self._answers.get()
            self._outbox.put((kind, mine, *content))
            while answered not in (mine, 0):
                try:
                    answered, value, error = self._answers.get(timeout=PATIENCE_S)
                except queue.Empty:
                    raise _NoAnswerError from None
            if error is not None:
                raise error
            return value


class _NoAnswerError(Exception):
    """The process died, or hangs."""

    def __str__(self) -> str:
        return "the process of the isolated backend does not answer"


_live: weakref.WeakSet[IsolatedBackend] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for backend in list(_live):
        backend.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)

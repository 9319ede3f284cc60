"""Starting the process of an isolated backend, and speaking to it."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from typing import Any

_log = logging.getLogger("vibe_rl")


class ChildProcess:
    """A process that has built a backend and waits for messages; see `child`.

    It is started afresh, not forked, in a session of its own, which Ctrl-C doesn't reach. All that
    joins us is a connection over an inherited descriptor; that this breaks tells either side that
    the other is dead.

    Args:
        name: What messages call the backend.
        call: What builds the backend: a callable, its arguments and keyword arguments, pickled.
        directory: Where the process works.
        run_id: What W&B run the process before had, if this one takes its place.
        index: The trainer's number in its job; see `processes.process_index`.

    Attributes:
        values: The backend's public attributes that are plain values.

    Raises:
        Exception: What building the backend raises.
        RuntimeError: If the process dies meanwhile.
    """

    def __init__(
        self, name: str, call: bytes, directory: str, *, run_id: str | None, index: int
    ) -> None:
        from multiprocessing.connection import Pipe  # noqa: PLC0415 - half of our import time

        self._connection, theirs = Pipe()
        descriptor = theirs.fileno()
        module = ("-P", "-m", "vibe_rl.metrics.isolation.child")
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, our own module
                [sys.executable, *module, str(descriptor), *sys.argv[1:]],
                pass_fds=[descriptor],
                stdin=subprocess.DEVNULL,
                cwd=directory,
                env=_environment(run_id),
                start_new_session=True,
            )
        try:
            self.send(os.getsid(0), index, call)
            while (message := self.receive())[0] == "log":
                _log.log(*message[1:])
        except EOFError:
            code = self.wait()
            raise RuntimeError(f"the process of {name} died before it was ready: {code}") from None
        except BaseException:  # Ctrl-C
            self._process.kill()
            self._process.wait()
            raise
        kind, content = message
        if kind == "error":
            self.let_go()
            self.wait()
            raise content
        self.values: dict[str, Any] = content

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def send(self, *message: Any) -> None:
        """Send a message; to a process that is dead, nothing. To one that is stopped, this waits.

        On one thread at a time.
        """
        with contextlib.suppress(OSError):
            self._connection.send(message)

    def receive(self) -> Any:
        """Wait for a message.

        Raises:
            EOFError: If the process is dead.
        """
        try:
            return self._connection.recv()
        except OSError:
            raise EOFError from None

    def wait(self) -> int:
        """Wait for the process to end; gives its exit code, or minus the signal that ended it."""
        return self._process.wait()

    def let_go(self) -> None:
        """In a forked child: close the connection, which tells that the parent is alive."""
        self._connection.close()


def _environment(run_id: str | None) -> dict[str, str]:
    """The environment of the process: it imports what we can import, and is about us.

    Args:
        run_id: See `ChildProcess`.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path),  # noqa: PTH100
        # If the backend's own module imports JAX, it shall not take the accelerator.
        "JAX_PLATFORMS": "cpu",
        # W&B's system statistics are about the trainer, and so is what it shows as the program.
        "WANDB__STATS_PID": str(os.getpid()),
        "WANDB_PROGRAM": os.environ.get("WANDB_PROGRAM", sys.argv[0]),
    }
    if run_id is not None:
        environment |= {"WANDB_RUN_ID": run_id, "WANDB_RESUME": "allow"}
    # The address of a W&B service of the trainer's, which would do the work in the trainer's name.
    environment.pop("WANDB_SERVICE", None)
    return environment

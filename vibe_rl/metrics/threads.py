"""What the writer's and the feeds' threads are made of."""

from __future__ import annotations

import threading
from collections.abc import Callable


class BackgroundThread(threading.Thread):
    """A thread of ours. A `write()` from one never waits, lest it wait for itself.

    Args:
        target: The method that it runs.
        name: What it does.

    Attributes:
        owner: The object whose method it runs.
    """

    def __init__(self, target: Callable[[], None], name: str) -> None:
        super().__init__(target=target, name=f"vibe_rl {name}", daemon=True)
        self.owner: object = getattr(target, "__self__", None)


class Bell:
    """Wakes one thread, from any thread and from signal handlers.

    `threading.Event` would do, but for a signal handler that interrupts its own thread inside
    `Event.set()` and sets it too: that deadlocks. Releasing a lock is atomic.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        """Let the thread that waits, or the next one that does, go on."""
        try:  # noqa: SIM105 - suppress() costs ten times as much
            self._lock.release()
        except RuntimeError:
            pass  # it rings already

    def wait(self, timeout: float | None = None) -> None:
        """Sleep until it rings, at most `timeout` seconds; then it is quiet again."""
        self._lock.acquire(timeout=-1 if timeout is None else timeout)

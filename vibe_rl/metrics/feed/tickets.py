"""How `flush()` and `close()` wait for whoever delivers a metrics file to a backend."""

from __future__ import annotations

import threading
import time

# Without a time-out, how long to wait for a backend that shows no sign of life.
PATIENCE_S = 30.0
# And how long for one that was given up already.
_GRACE_S = 2.0
# How long a waiter sleeps at a time; if it sleeps twice that, the process was stopped meanwhile.
_NAP_S = 1.0


class Patience:
    """How long feeds have been waited for: one for all of those that are waited for in turn.

    Attributes:
        since: When the wait began, or the process went on after it had been stopped.
    """

    def __init__(self) -> None:
        self.since = time.monotonic()


class Tickets:
    """Requests to deliver all that the file holds, which a feed settles one after the other.

    Args:
        name: What messages call the backend.

    Attributes:
        name: The same.
        takes_exit_code: Whether the backend has an attribute `exit_code`, to note how a run ended.
        is_refused: Whether it waits for another feed, which delivers to the same backend, to end.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.takes_exit_code = self.is_refused = False
        self._changed = threading.Condition()
        self._asked = 0
        # The last ticket that was settled, and the last one with success; of a closed feed: inf.
        self._settled = self._delivered = 0.0
        self._waiters = 0
        self._closing = self._abandoned = False
        self._exit_code: int | None = None
        self._alive = time.monotonic()  # the backend's last sign of life

    def ask(
        self, *, close: bool = False, exit_code: int | None = None, ticket: int | None = None
    ) -> int:
        """Ask for all that the file holds now to be delivered, the last lines too, without pauses.

        Args:
            close: Close the backend after that.
            exit_code: What the run failed with, for a backend that has an attribute of this name;
                None if it did not.
            ticket: The ticket's number, if somebody else has issued it; higher than those before.

        Returns:
            A ticket for `wait()`, which must follow, or else `waive()`.
        """
        with self._changed:
            self._closing |= close
            self._exit_code = exit_code if self._exit_code is None else self._exit_code
            self._asked = self._asked + 1 if ticket is None else ticket
            self._waiters += 1
            self._changed.notify_all()
            return self._asked

    def wait(self, ticket: int, deadline: float | None, patience: Patience | None = None) -> bool:
        """Wait until what was asked for is settled; False if not all was delivered by then.

        Args:
            ticket: From `ask()`.
            deadline: On `time.monotonic()`'s clock. None waits as long as the backend makes
                progress, and gives up 30 s after its last sign of life.
            patience: Of a wait for several feeds, which this one is a part of.
        """
        patience = patience or Patience()
        with self._changed:
            try:
                while self._settled < ticket:
                    limit = deadline
                    if limit is None:
                        seconds = _GRACE_S if self._abandoned else PATIENCE_S
                        limit = max(patience.since, self._alive) + seconds
                    left = limit - time.monotonic()
                    if left <= 0:
                        return False
                    nap = min(left, _NAP_S)
                    wake = time.monotonic() + nap
                    self._changed.wait(nap)
                    if time.monotonic() > wake + _NAP_S:
                        # We were stopped, and the backend with us.
                        patience.since = time.monotonic()
            finally:
                self._waiters -= 1
            return self._delivered >= ticket

    def waive(self) -> None:
        """Not `wait()` for a ticket, after all: what was asked for is done at the usual pace."""
        with self._changed:
            self._waiters -= 1

    @property
    def settled(self) -> tuple[float, float]:
        """The last ticket that was settled, and the last one with success."""
        return self._settled, self._delivered

    @property
    def closing(self) -> bool:
        """Whether somebody has asked to close the backend."""
        return self._closing

    def abandon(self) -> None:
        """Wait for the backend no longer: it is closed as soon as it returns from its last call."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def _settle(self, ticket: float, *, delivered: bool) -> None:
        with self._changed:
            self._settled = max(self._settled, ticket)
            if delivered:
                self._delivered = max(self._delivered, ticket)
            self._changed.notify_all()

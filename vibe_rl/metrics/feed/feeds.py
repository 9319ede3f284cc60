"""A logger's backends: each follows the metrics file by itself, and all are waited for together."""

from __future__ import annotations

import logging
import sys
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path

from vibe_rl.metrics.backends.protocol import LogBackend, name_of
from vibe_rl.metrics.feed.exit_watch import exit_watch
from vibe_rl.metrics.feed.feed import BackendStats, Feed
from vibe_rl.metrics.feed.tickets import Patience
from vibe_rl.metrics.isolation.isolated import IsolatedBackend
from vibe_rl.metrics.jsonl import count_newlines
from vibe_rl.metrics.lines import Position

_log = logging.getLogger("vibe_rl")

# So much of what a backend lacks is counted; the rest is reckoned from that.
_COUNTED_BYTES = 4 << 20


class Feeds:
    """Starts a feed for each backend, and speaks to all of them at once.

    Args:
        backends: Those of one logger.
        path: The metrics file; it exists already.
        start: Where the logger's own records begin: a backend that is new to the file gets what
            follows.
    """

    def __init__(self, backends: Sequence[LogBackend], path: Path, start: Position) -> None:
        self._path = path
        self._feeds: list[Feed | IsolatedBackend] = []
        seen: Counter[str] = Counter()
        try:
            for backend in backends:
                kind = name_of(backend)
                nth = seen[kind]
                seen[kind] += 1
                name = kind if nth == 0 else f"{kind} {nth + 1}"
                if isinstance(backend, IsolatedBackend):
                    backend.follow(path, start, name=name, nth=nth)
                    self._feeds.append(backend)
                else:
                    self._feeds.append(Feed(backend, path, start, name=name, nth=nth))
        except BaseException:
            self.deliver(None, close=True)  # those that have started let go of their cursors
            raise
        if any(feed.takes_exit_code for feed in self._feeds):
            exit_watch.start(self)

    def __contains__(self, feed: object) -> bool:
        return any(feed is each for each in self._feeds)

    @property
    def stats(self) -> dict[str, BackendStats]:
        """How far each backend is, by name."""
        return {feed.name: feed.stats for feed in self._feeds}

    def wake(self) -> None:
        """Say that the file has grown."""
        for feed in self._feeds:
            feed.wake()

    def deliver(self, deadline: float | None, *, close: bool = False, how: str = "") -> bool:
        """Have every feed deliver what the file holds, all at the same time, and wait for it.

        Args:
            deadline: On `time.monotonic()`'s clock. None waits as long as there is progress.
            close: Close the backends after that. Ctrl-C ends the wait.
            how: How the logger ended: `"closed"`, at `"exit"`, or by an error of this name.

        Returns:
            Whether every backend has everything. What one lacks is said in the log.
        """
        exit_code = _exit_code(how)
        patience = Patience()
        delivered = True
        asked: deque[tuple[Feed | IsolatedBackend, int]] = deque()
        try:
            asked.extend((feed, feed.ask(close=close, exit_code=exit_code)) for feed in self._feeds)
            while asked:
                feed, ticket = asked.popleft()
                if not feed.wait(ticket, deadline, patience):
                    delivered = False
                    self._report(feed, close=close)
        finally:
            for feed, _ in asked:  # after a Ctrl-C
                feed.waive()
            if close:
                exit_watch.stop(self)
                for feed in self._feeds:
                    feed.abandon()
        return delivered

    def after_fork(self) -> None:
        """In a forked child: backends stay the parent's."""
        for feed in self._feeds:
            feed.after_fork()
        self._feeds = []

    def _report(self, feed: Feed | IsolatedBackend, *, close: bool) -> None:
        if feed.is_refused:
            return  # as it has said
        if behind := feed.stats.behind:
            lacks = f"did not take the last {self._records(feed, behind)} of {self._path} in time"
        else:  # so its flush() or close() has raised, or hangs
            lacks = f"took all of {self._path}, but may not have saved the last of it"
        sync = f"`vibe-rl sync {self._path} --to ...` delivers the rest"
        _log.error("%s %s; %s", feed.name, lacks, sync if close else "it goes on")

    def _records(self, feed: Feed | IsolatedBackend, behind: int) -> str:
        """What a backend lacks, in words. Counts not all of much, for `close()` returns in time."""
        try:
            with self._path.open("rb", buffering=0) as file:
                file.seek(feed.position.byte)
                text = file.read(_COUNTED_BYTES)
        except OSError:
            return f"{behind} bytes"
        records = count_newlines(text)
        if len(text) < min(behind, _COUNTED_BYTES) or behind <= _COUNTED_BYTES:
            return f"{records} records ({behind} bytes)"
        return f"about {records * behind // len(text)} records ({behind} bytes)"


def _exit_code(how: str) -> int | None:
    """What the run failed with; None if it did not: then a backend may know better than we do."""
    if how == "exit":
        crashed = getattr(sys, "last_value", None) is not None and not hasattr(sys, "ps1")
        return 1 if crashed else exit_watch.code or None
    return None if how in ("", "closed") else 1

"""What a logger counts."""

from __future__ import annotations

from dataclasses import dataclass

from vibe_rl.metrics.feed.feed import BackendStats


@dataclass(frozen=True)
class LoggerStats:
    """A logger's counts at one moment.

    `written + queued + dropped` is the number of records that it has accepted: calls of `write()`
    that raised no error about their record, rows of `write_batch()`, and what compiled functions
    have sent before `close()`.

    Attributes:
        written: Records that this logger has put in the file.
        queued: Records accepted, but not yet in the file.
        dropped: Records given up because the queue was full; because, with `defer`, their values
            were gone before they were read; or because what a compiled function sent could not be
            read.
        late: Records that came from a compiled function after `close()`, and are not logged.
        high_water: The most records that ever waited in the queue at a time.
        backends: How far each backend is, by name.

    Examples:
        >>> with MetricsLogger("runs/example/metrics.jsonl") as logger:
        ...     logger.write({"step": 0, "loss": 0.5})
        >>> logger.stats.written, logger.stats.dropped
        (1, 0)
    """

    written: int
    queued: int
    dropped: int
    late: int
    high_water: int
    backends: dict[str, BackendStats]

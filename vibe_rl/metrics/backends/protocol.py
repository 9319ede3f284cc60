"""What the logger asks of a backend."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class LogBackend(Protocol):
    """Anything that has these two methods can be given to `MetricsLogger(backends=[...])`.

    The logger calls them from one thread of its own, never from the training loop's, so a backend
    may be slow. An exception from `log` is logged and counted, and stops nothing else. A backend
    that also has a method `flush()` has it called by `MetricsLogger.flush()`; one that has
    `restart(step)` is told when the run goes back to a step, and logs anew what came after it.

    Examples:
        >>> class PrintBackend:
        ...     def log(self, record, step=None):
        ...         print(step, record["loss"])
        ...     def close(self):
        ...         print("closed")
        >>> isinstance(PrintBackend(), LogBackend)
        True
    """

    def log(self, record: dict[str, Any], step: int | None = None) -> None:
        """Take one record.

        Args:
            record: The record as `read_metrics` would give it: plain Python values, non-finite
                numbers as floats, `wall_time` included. It is the backend's to keep or change.
            step: The record's `"step"`, or None if it has none.
        """

    def close(self) -> None:
        """Deliver what is held back and let go of everything. Called once."""

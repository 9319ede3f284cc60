"""What the logger asks of a backend."""

from __future__ import annotations

from collections.abc import Callable
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


def is_backend(candidate: Any) -> bool:
    """Whether it is an object with methods `log` and `close`."""
    return (
        not isinstance(candidate, type)
        and method_of(candidate, "log") is not None
        and method_of(candidate, "close") is not None
    )


def method_of(backend: Any, name: str) -> Callable[..., Any] | None:
    """A method that a backend may have; None if it has none, or something else of that name."""
    method = getattr(backend, name, None)
    return method if callable(method) else None


def text_of(backend: Any, name: str) -> str | None:
    """A text that a backend may have; None if it has none, or something else of that name."""
    text = getattr(backend, name, None)
    return text if isinstance(text, str) and text else None


def name_of(backend: Any) -> str:
    """What messages call a backend: its `name`, or else its class's."""
    return text_of(backend, "name") or type(backend).__name__

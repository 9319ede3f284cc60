"""What a shipped backend is on the processes of a job that don't log."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from vibe_rl.processes import process_index

_Backend = TypeVar("_Backend", bound=type)
_Make = TypeVar("_Make", bound=Callable[..., Any])


class InertBackend:
    """Takes records and does nothing.

    Attributes:
        run_id: None: there is no run here.
    """

    run_id = None

    def log(self, record: dict[str, Any], step: int | None = None) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def primary_only(backend: _Backend) -> _Backend:
    """Make a backend class one that only the first process of a `jax.distributed` job constructs.

    On the others, calling the class gives an `InertBackend`, so that a script that runs on all
    processes has one W&B run, one id file and one set of curves.
    """
    decorated: Any = backend

    @functools.wraps(decorated.__init__)  # for its signature
    def new(cls: type, *_args: Any, **_kwargs: Any) -> Any:
        return object.__new__(cls) if process_index() == 0 else InertBackend()

    decorated.__new__ = new
    return makes_primary_only(backend)


def makes_primary_only(make: _Make) -> _Make:
    """Mark what makes a backend of a class that is `primary_only`."""
    marked: Any = make
    marked.primary_only = True
    return make


def is_inert_here(make: Callable[..., Any]) -> bool:
    """Whether what makes a backend would make an `InertBackend` in this process."""
    while isinstance(make, functools.partial):
        make = make.func
    return process_index() != 0 and getattr(make, "primary_only", False)

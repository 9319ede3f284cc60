"""What a logger is made with: checked by the call that makes it."""

from __future__ import annotations

import errno
import operator
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from vibe_rl.metrics.backends.inert import InertBackend
from vibe_rl.metrics.backends.protocol import LogBackend, is_backend
from vibe_rl.metrics.isolation.isolated import IsolatedBackend
from vibe_rl.metrics.writer import Overflow
from vibe_rl.run_dir import RunDir
from vibe_rl.urls import is_url

Process = Literal["primary", "all"]


def checked_count(name: str, value: Any, of: str, least: int = 1) -> int:
    """A setting that counts something, as an `int`: of Python's, NumPy's or JAX's integers.

    Raises:
        ValueError: If it is no integer, or less than `least`.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise ValueError(f"{name} is a number of {of}, at least {least}, not {value!r}")
    return number


def check_words(overflow: str, process: str) -> None:
    """Check the settings that are one of a few words."""
    if overflow not in get_args(Overflow):
        raise ValueError(f"overflow is one of {', '.join(get_args(Overflow))}; not {overflow!r}")
    if process not in get_args(Process):
        raise ValueError(f"process is one of {', '.join(get_args(Process))}; not {process!r}")


def check_interval(seconds: float) -> None:
    """Check that a thread can sleep for so long."""
    if not isinstance(seconds, int | float) or not 0 <= seconds <= threading.TIMEOUT_MAX:
        raise ValueError(
            f"flush_interval is a number of seconds from 0 to {threading.TIMEOUT_MAX:g}, "
            f"not {seconds!r}"
        )


def local_path(path: str | os.PathLike[str] | RunDir) -> Path:
    """Where the metrics file is, wherever the program changes its directory to.

    Raises:
        ValueError: If it is a URL.
        IsADirectoryError: If it is a directory.
    """
    if isinstance(path, RunDir):
        path = path.log_path()
    if is_url(path):
        raise ValueError(f"{os.fspath(path)!r} is a URL; metrics are written to a local path")
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(
            errno.EISDIR, "is a directory; give a file in it, or a RunDir", str(path)
        )
    return path.absolute()


def checked_backends(backends: Sequence[LogBackend] | None) -> list[LogBackend]:
    """The backends that are to get records on this process.

    Raises:
        TypeError: If one lacks `log` or `close`, or they are no sequence.
        ValueError: If one stands there twice, or serves another logger.
    """
    if isinstance(backends, LogBackend) or not isinstance(backends or (), Sequence):
        raise TypeError(f"backends is a list of backends, not {backends!r}")
    for nth, backend in enumerate(backends or ()):
        if any(backend is other for other in (backends or ())[:nth]):
            raise ValueError(f"{backend!r} stands twice among the backends: it would get all twice")
        if isinstance(backend, IsolatedBackend) and backend.is_in_use:
            raise ValueError(f"{backend.name} serves one logger, once; make one for each logger")
        if not is_backend(backend):
            raise TypeError(f"a backend is an object with methods log and close, not {backend!r}")
    return [backend for backend in backends or () if not isinstance(backend, InertBackend)]

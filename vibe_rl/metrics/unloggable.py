"""Why a value can't be logged: the errors of `write()`, which name the metric and the way out."""

from __future__ import annotations

from typing import Any, NoReturn


class UnloggableError(Exception):
    """Why a value can't be logged, and where in the record it stands."""

    def __init__(self, kind: type[Exception], reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.path: list[str] = []

    def public(self) -> Exception:
        """The `TypeError` or `ValueError` that the caller of `write()` sees."""
        metric = (
            f"metric {'.'.join(reversed(self.path))!r:.199}" if self.path else "what was packed"
        )
        return self.kind(f"{metric}: {self.reason}")


def unreadable(value: Any, error: Exception) -> UnloggableError:
    """Why a JAX array could not be read; `error` is what JAX said."""
    if value.is_deleted():
        return UnloggableError(
            ValueError,
            "the array's buffer was deleted or donated to a compiled function before it was read; "
            "write the record before that call (with defer, that many writes before), or don't "
            "donate this value",
        )
    if "key<" in str(value.dtype):
        return UnloggableError(
            TypeError, "is a PRNG key array; log jax.random.key_data(key) if you mean its bits"
        )
    if not value.is_fully_addressable:
        return UnloggableError(
            ValueError,
            "is spread over devices of other processes; reduce or replicate it in the compiled "
            "function, so that each process holds all of it",
        )
    return UnloggableError(ValueError, f"can't be read from the device: {error}")


def refuse_tracer(value: Any) -> NoReturn:
    """Refuse a value that stands for one inside a compiled function."""
    raise UnloggableError(
        TypeError,
        f"is a tracer ({value.aval.str_short()}): inside jit there is no value yet; use "
        "logger.emit there, or return it from the compiled function and write it then",
    )


def refuse_masked(_: Any) -> NoReturn:
    """Refuse a masked array: what shall stand for what is masked?"""
    reason = "is a masked array: log array.filled(...) with what shall stand for masked values"
    raise UnloggableError(TypeError, reason)


def refuse(value: Any) -> NoReturn:
    """Refuse a value of a kind that the file can't hold."""
    kind = type(value)
    raise UnloggableError(
        TypeError,
        f"a value of type {kind.__module__}.{kind.__qualname__} can't be logged; a record holds "
        "numbers, text, booleans, None, arrays, and lists and mappings of these: convert it first",
    )

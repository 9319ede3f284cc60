"""A backend's parts: one of its kind for each value that a field of the records has."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

_Backend = TypeVar("_Backend")

_log = logging.getLogger("vibe_rl")

# A file's name may have 255 bytes, a W&B id 128.
_LABEL_CHARACTERS = 60
# Each part keeps a file open, and a process may have 256 to 1024.
_MOST = 128


class Parts(Generic[_Backend]):
    """Makes a backend for each value of a field, when the first record that has it comes.

    But for no more than 128 values: records with further ones have no part, which is warned of.

    Args:
        field: The field's name; None: there are no parts.
        make: Makes the backend of a value; gets the value, and a label such as `seed-3`, short
            and of characters that a file's name and a W&B id may have, which no other value has.
    """

    def __init__(self, field: str | None, make: Callable[[Any, str], _Backend]) -> None:
        if field is not None and not isinstance(field, str):
            raise TypeError(f"split_by is the name of a field, such as 'seed', not {field!r}")
        self.field = field
        self._make = make
        self._parts: dict[str, _Backend] = {}
        self._has_warned = False

    @property
    def suffix(self) -> str:
        """What the identity of a backend with these parts ends in."""
        return "" if self.field is None else f" split by {self.field}"

    @property
    def prefix(self) -> str | None:
        """What the label of each part begins with; no character of it means more to a glob."""
        return None if self.field is None else _sanitized(f"{self.field}-")

    @property
    def labels(self) -> list[str]:
        """The labels of the parts that were made."""
        return [_label(name) for name in self._parts]

    def of(self, record: dict[str, Any]) -> _Backend | None:
        """The backend that a record belongs to; None if it belongs to no part."""
        if self.field is None:
            return None
        value = record.get(self.field)
        if value is None or isinstance(value, dict | list):
            return None
        name = f"{self.field}-{value}"
        part = self._parts.get(name)
        if part is None and len(self._parts) < _MOST:
            part = self._parts[name] = self._make(value, _label(name))
        if part is None and not self._has_warned:
            self._has_warned = True
            _log.warning(
                "%s has more than %d values: records with further ones are logged unsplit",
                self.field,
                _MOST,
            )
        return part

    def __iter__(self) -> Iterator[_Backend]:
        return iter(self._parts.values())


def _label(name: str) -> str:
    label = _sanitized(name)
    if label == name:
        return label
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{label}-{digest}"


def _sanitized(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII)[:_LABEL_CHARACTERS]

"""A backend's parts: one of its kind for each value that a field of the records has."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

_Backend = TypeVar("_Backend")

# A file's name may have 255 bytes, a W&B id 128.
_LABEL_CHARACTERS = 60


class Parts(Generic[_Backend]):
    """Makes a backend for each value of a field, when the first record that has it comes.

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

    def of(self, record: dict[str, Any]) -> _Backend | None:
        """The backend that a record belongs to; None if it has no such field."""
        if self.field is None:
            return None
        value = record.get(self.field)
        if value is None or isinstance(value, dict | list):
            return None
        name = f"{self.field}-{value}"
        if name not in self._parts:
            self._parts[name] = self._make(value, _label(name))
        return self._parts[name]

    def __iter__(self) -> Iterator[_Backend]:
        return iter(self._parts.values())


def _label(name: str) -> str:
    label = re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII)[:_LABEL_CHARACTERS]
    if label == name:
        return label
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{label}-{digest}"

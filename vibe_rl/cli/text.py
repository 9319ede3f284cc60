"""Numbers, times and sizes as people read them, in few characters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

_BARS = "▁▂▃▄▅▆▇█"
_NOT_FINITE = "x"


def short(value: Any) -> str:
    """A number in about six characters: `1.23M`, `-0.0042`; of text, one line."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return exact(value)
    if abs(value) < 9999.5 or not abs(value) < 999.5e12:
        digits = 4 if 1 <= abs(value) < 9999.5 else 3
        return f"{value:.{digits}g}"
    scaled, unit = _scale(value, "kMGT")
    return f"{scaled:.3g}{unit}"


def exact(value: Any) -> str:
    """A value for a table of records: floats in six significant digits, integers whole."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:g}"
    return printable(str(value))


def printable(text: str) -> str:
    """A text in one line that does nothing to a terminal: what can't be printed is escaped."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def encodable(text: str) -> str:
    """A text as it is, but for the bytes of a file's name that are no UTF-8: these are escaped."""
    return text.encode(errors="backslashreplace").decode()


def duration(seconds: float) -> str:
    """A time span in its largest unit: `42s`, `5m`, `3h`, `12d`."""
    seconds = max(seconds, 0.0)
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(seconds)}s"


def size(num_bytes: int) -> str:
    """A file's size: `812B`, `14k`, `1.2M`, `1.0G`."""
    if num_bytes < 1000:
        return f"{num_bytes}B"
    value, unit = _scale(num_bytes, "kMGT")
    return f"{value:.{1 if value < 9.95 else 0}f}{unit}"


def sparkline(values: Sequence[float], width: int = 8) -> str:
    """A curve of one character for each stretch of values; `x` where none of them is finite."""
    width = min(width, len(values))
    edges = [len(values) * i // width for i in range(width + 1)] if width else [0]
    means = [_mean(values[a:b]) for a, b in pairwise(edges)]
    finite = [mean for mean in means if math.isfinite(mean)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    span = high - low
    return "".join(
        _BARS[min(int((mean - low) / span * len(_BARS)), len(_BARS) - 1) if span > 0 else 0]
        if math.isfinite(mean)
        else _NOT_FINITE
        for mean in means
    )


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else math.nan


def _scale(value: float, units: str) -> tuple[float, str]:
    """A number in the first of the units, each 1000 times the one before, that makes it short."""
    value, nth = value / 1000, 0
    while abs(value) >= 999.5 and nth + 1 < len(units):
        value, nth = value / 1000, nth + 1
    return value, units[nth]

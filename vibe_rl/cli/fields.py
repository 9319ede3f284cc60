"""What the fields of a record mean: its metrics, and what says where and whose they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeGuard

from vibe_rl.cli import UsageError

# Of several runs in one file, the field that tells them apart.
LABELS = ("seed", "lane", "process")

# No metrics: they say when and whose a record is.
_PLACES = frozenset({"step", "wall_time", *LABELS})
_RETURNS = ("episode_return", "eval_return_mean", "return", "reward")


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a number; a bool is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def metrics_of(record: Mapping[str, Any]) -> dict[str, float]:
    """A record's numeric metrics; what a mapping in it holds is called `outer/inner`."""
    found: dict[str, float] = {}
    _collect(record, "", found)
    return found


def value_of(record: Mapping[str, Any], metric: str) -> float | None:
    """A record's value of a metric, by the name that `metrics_of` gives it; None without."""
    if metric in record:
        return float(record[metric]) if is_number(record[metric]) else None
    outer, _, inner = metric.partition("/")
    held = record.get(outer)
    return value_of(held, inner) if inner and isinstance(held, Mapping) else None


def return_metric(names: Iterable[str]) -> str | None:
    """The metric that says how well a run does, by its name; None if no name does."""
    there = list(dict.fromkeys(names))
    for word in _RETURNS:
        for name in there:
            if word == name or word in name.split("/"):
                return name
    return next((name for name in there if "return" in name or "reward" in name), None)


def check_metric(wanted: str, names: Iterable[str]) -> str:
    """Give a metric's name back if there is such a metric.

    Raises:
        UsageError: If there is none; names those that come near.
    """
    there = list(dict.fromkeys(names))
    if wanted in there:
        return wanted
    near = [name for name in there if wanted in name] or get_close_matches(wanted, there)
    raise UsageError(f"there is no metric {wanted!r}; there are: {', '.join(near or there) or '-'}")


def _collect(record: Mapping[str, Any], prefix: str, found: dict[str, float]) -> None:
    for name, value in record.items():
        if is_number(value):
            if prefix or name not in _PLACES:
                found[prefix + name] = value
        elif isinstance(value, Mapping):
            _collect(value, f"{prefix}{name}/", found)

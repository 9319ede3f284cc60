"""What the fields of a record mean: its metrics, and what says where and whose they are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, TypeGuard

# Of several curves in one file, the fields that tell them apart.
LABELS = ("seed", "lane", "process")

# No metrics: they say when and whose a record is.
_PLACES = frozenset({"step", "wall_time", *LABELS})
_RETURNS = ("episode_return", "eval_return_mean", "return", "reward")
# A message names at most so many fields.
_NAMED = 12


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a number; a bool is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def flat(record: Mapping[str, Any], separator: str = "/") -> Iterator[tuple[str, Any]]:
    """A record's fields; what a mapping in it holds is called `outer/inner`."""
    for name, value in record.items():
        if isinstance(value, Mapping) and value:
            for inner, held in flat(value, separator):
                yield f"{name}{separator}{inner}", held
        else:
            yield name, value


def values_at(record: Mapping[str, Any], name: str) -> Iterator[Any]:
    """A record's values of a field, by its name in `flat`: one, unless names with a / collide."""
    if name in record and not (isinstance(record[name], Mapping) and record[name]):
        yield record[name]
    cut = name.find("/")
    while cut >= 0:
        held = record.get(name[:cut])
        if isinstance(held, Mapping):
            yield from values_at(held, name[cut + 1 :])
        cut = name.find("/", cut + 1)


def metrics_of(record: Mapping[str, Any]) -> dict[str, float]:
    """A record's numeric metrics, by their names in `flat`."""
    return {n: value for n, value in flat(record) if is_number(value) and n not in _PLACES}


def metric_names(names: Iterable[str]) -> list[str]:
    """Of the names of numeric fields, those of metrics."""
    return [name for name in names if name not in _PLACES]


def value_of(record: Mapping[str, Any], metric: str) -> float | None:
    """A record's value of a metric, by the name that `metrics_of` gives it; None without."""
    if metric in record:
        return float(record[metric]) if is_number(record[metric]) else None
    outer, _, inner = metric.partition("/")
    held = record.get(outer)
    return value_of(held, inner) if inner and isinstance(held, Mapping) else None


def label(name: str, value: Any) -> str:
    """What one of the `LABELS` says of a record: `seed 3`; without a value, nothing."""
    if value is None or isinstance(value, Mapping):
        return ""
    # A column has one type: were the others' fractions, the same seed's label would be another.
    is_whole = isinstance(value, float) and math.isfinite(value) and value == int(value)
    return f"{name} {int(value) if is_whole else value}"


def label_of(record: Mapping[str, Any]) -> str:
    """What tells a record's curve from others in its file; "" if nothing does."""
    if record.keys().isdisjoint(LABELS):
        return ""
    return " ".join(filter(None, (label(name, record.get(name)) for name in LABELS)))


def return_metric(names: Iterable[str]) -> str | None:
    """The metric that says how well a run does, by its name; None if no name does."""
    there = list(dict.fromkeys(names))
    for word in _RETURNS:
        for name in there:
            if word == name or word in name.split("/"):
                return name
    return next((name for name in there if "return" in name or "reward" in name), None)


def instead_of(wanted: str, names: Iterable[str]) -> str:
    """What a message says where there is no field of a name: those that come near, or all."""
    there = list(dict.fromkeys(names))
    near = [name for name in there if wanted in name] or get_close_matches(wanted, there)
    if near:
        return f"near it: {', '.join(near[:_NAMED])}"
    return f"there are: {', '.join(there[:_NAMED]) or '-'}{', …' if len(there) > _NAMED else ''}"


class TrainingTime:
    """Seconds of training of a run that was resumed: each logger's `wall_time` begins at 0."""

    def __init__(self) -> None:
        self._last = self._before = 0.0

    def at(self, wall: Any) -> float:
        """The time of the next record, by its `wall_time`; of one without, that of the last."""
        if is_number(wall) and math.isfinite(wall):
            # Half, for records of several threads may lie a little out of order.
            self._before += self._last if wall < 0.5 * self._last else 0.0
            self._last = wall
        return self._before + self._last

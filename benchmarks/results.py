"""What a benchmark gives: cases with figures, the machine they were taken on, and their file."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np


class Spread(NamedTuple):
    """A figure, and between which values the middle half of what was measured lies."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float] | np.ndarray | float) -> Self:
        """The median and quartiles of some values; of one value, that one."""
        low, median, high = np.quantile(np.asarray(values, float), [0.25, 0.5, 0.75])
        return cls(float(median), float(low), float(high))


@dataclass(frozen=True)
class Result:
    """One case: a line of a table.

    Attributes:
        table: The table's title, which says what was measured; unique within the benchmark.
        case: What was measured.
        figures: By column. A column's name gives the unit; "x" and a name is a ratio to that case.
        why: Why there are no figures.
    """

    table: str
    case: str
    figures: dict[str, Spread] = field(default_factory=dict)
    why: str = ""


@dataclass
class Report:
    """What one run of the benchmarks gave.

    Attributes:
        date: When it began, UTC; of several, when the first and the last did.
        machine: Cores, device and system, in a line.
        versions: Of Python and of each library and peer.
        absent: The peers that were not measured, and the reason.
        results: By benchmark.
        seconds: How long each benchmark took.
        failed: Why a benchmark gave nothing.
    """

    date: str
    machine: str
    versions: dict[str, str]
    absent: dict[str, str]
    results: dict[str, list[Result]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        report = cls(**json.loads(path.read_text()))
        report.results = {
            name: [_result(each) for each in results] for name, results in report.results.items()
        }
        return report


def new_report(versions: dict[str, str], absent: dict[str, str]) -> Report:
    """A report of this machine, of now, without results."""
    import jax

    ours = {name: version(name) for name in ("vibe-rl", "jax", "numpy", "orjson")}
    return Report(
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        machine=f"{machine()}, device {jax.devices()[0].device_kind}",
        versions={"Python": platform.python_version(), **ours, **versions},
        absent=absent,
    )


def machine() -> str:
    """This machine's cores and its system."""
    return f"{os.cpu_count()} cores of {_processor()}, {platform.system()} {platform.release()}"


def merged(parts: Sequence[Report], failed: dict[str, str]) -> Report:
    """One report of several that were taken on one machine, one after the other."""
    dates = sorted({part.date for part in parts})
    date = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    whole = dataclasses.replace(parts[0], date=date, failed=failed)
    for part in parts[1:]:
        whole.results |= part.results
        whole.seconds |= part.seconds
    return whole


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _result(saved: dict[str, Any]) -> Result:
    figures = {column: Spread(*figure) for column, figure in saved["figures"].items()}
    return Result(saved["table"], saved["case"], figures, saved["why"])

"""What the benchmarks are meant to show, and whether a report shows it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from benchmarks.results import Report


@dataclass(frozen=True)
class Target:
    """A bound on a figure's median, in every case and table that the patterns match."""

    benchmark: str
    table: str
    case: str
    column: str
    at_most: float = math.inf
    at_least: float = -math.inf

    def is_met(self, value: float) -> bool:
        """Whether a median lies within the bound."""
        return self.at_least <= value <= self.at_most

    def __str__(self) -> str:
        return f"≤ {self.at_most:,}" if self.at_most < math.inf else f"≥ {self.at_least:,}"


def compared(report: Report) -> Iterator[tuple[str, Target, float]]:
    """What was measured of each target: where, the target, the median."""
    for target in TARGETS:
        for result in report.results.get(target.benchmark, ()):
            if (
                fnmatchcase(result.table, target.table)
                and fnmatchcase(result.case, target.case)
                and target.column in result.figures
            ):
                where = f"{target.benchmark}: {result.table}, {result.case}, {target.column}"
                yield where, target, result.figures[target.column].median


FIVE = "5 fresh JAX scalars"
OURS = "vibe_rl*"
TARGETS = [
    Target("write", FIVE, "vibe_rl", "p50, x floor", at_most=1.25),
    Target("write", FIVE, "vibe_rl", "p99.9, x floor", at_most=2),
    Target("write", FIVE, "jsonl", "p50, x vibe_rl", at_least=2),
    Target("write", FIVE, "wandb", "p50, x vibe_rl", at_least=15),
    Target("write", FIVE, "tensorboardX", "p50, x vibe_rl", at_least=40),
    Target("loop", "a step of 150 µs", "vibe_rl, file only", "x reading", at_most=1.03),
    Target(
        "loop", "a step of 150 µs", "vibe_rl, TensorBoard on a thread", "x reading", at_most=1.08
    ),
    Target("loop", "a step of 150 µs", "*TensorBoard and W&B iso*", "x reading", at_most=1.08),
    Target("loop", "a step of 1* ms", OURS, "x reading", at_most=1.02),
    *(
        Target("backends", "a step of 150 µs", f"vibe_rl, {case}", "x reading", at_most=at_most)
        for case, at_most in (
            ("file only", 1.05),
            ("TensorBoard on a thread", 1.12),
            ("TensorBoard isolated", 1.1),
            ("W&B isolated", 1.1),
        )
    ),
    Target("backends", "*", "*TensorBoard on a thread", "p99.9, x file only", at_most=1.3),
    *(
        Target("convoy", "*", f"vibe_rl, {backend}", column, at_most=at_most)
        for backend in ("TensorBoard on a thread", "TensorBoard isolated", "W&B isolated")
        for column, at_most in (
            ("p50, x nothing", 1.15),
            ("p99.9, x nothing", 1.5),
            ("200,000 in, s", 15),
        )
    ),
    Target("stalls", "*", OURS, "p99.9, x without", at_most=2),
    Target("throughput", "*", "vibe_rl, write", "records/s", at_least=400_000),
    Target("throughput", "*", "vibe_rl, write_batch", "records/s", at_least=1_500_000),
    Target("throughput", "growth of the process*", OURS, "MB", at_most=20),
    Target("read", "*", "vibe_rl, read_metrics", "x json.loads a line", at_most=0.2),
    Target("read", "*", "vibe_rl, read_columns without polars", "x polars", at_most=4),
    Target("read", "*", "vibe_rl, read_columns", "x polars", at_most=1.2),
    Target("growth", "metrics a record", "*", "exponent", at_most=1.1),
    *(
        Target("growth", table, "*", "exponent", at_most=0.1)
        for table in ("backends", "bytes in the file*", "records written before")
    ),
]

"""The logger: `MetricsLogger`, reading back, backends, and console logging."""

from vibe_rl.metrics.backends import LogBackend
from vibe_rl.metrics.feed import BackendStats
from vibe_rl.metrics.jsonl import iter_metrics, read_metrics
from vibe_rl.metrics.logger import LoggerStats, MetricsLogger

__all__ = [
    "BackendStats",
    "LogBackend",
    "LoggerStats",
    "MetricsLogger",
    "iter_metrics",
    "read_metrics",
]

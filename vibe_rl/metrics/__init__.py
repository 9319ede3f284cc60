"""The logger: `MetricsLogger`, reading back, backends, and console logging."""

from vibe_rl.metrics.backends import (
    LogBackend,
    TensorBoardBackend,
    WandbBackend,
    resume_wandb,
)
from vibe_rl.metrics.console import log_step_progress, setup_logging
from vibe_rl.metrics.feed.feed import BackendStats
from vibe_rl.metrics.isolation.isolated import isolated
from vibe_rl.metrics.jit.packing import Packed, pack
from vibe_rl.metrics.logger import MetricsLogger
from vibe_rl.metrics.progress import TrainingProgress
from vibe_rl.metrics.reading.columns import read_columns
from vibe_rl.metrics.reading.downsampling import downsample
from vibe_rl.metrics.reading.frames import to_pandas, to_polars
from vibe_rl.metrics.reading.records import iter_metrics, read_metrics
from vibe_rl.metrics.reading.runs import load_runs
from vibe_rl.metrics.stats import LoggerStats

__all__ = [
    "BackendStats",
    "LogBackend",
    "LoggerStats",
    "MetricsLogger",
    "Packed",
    "TensorBoardBackend",
    "TrainingProgress",
    "WandbBackend",
    "downsample",
    "isolated",
    "iter_metrics",
    "load_runs",
    "log_step_progress",
    "pack",
    "read_columns",
    "read_metrics",
    "resume_wandb",
    "setup_logging",
    "to_pandas",
    "to_polars",
]

"""Columns as a data frame: `to_pandas` and `to_polars`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from vibe_rl.metrics.reading.columns import read_columns
from vibe_rl.run_dir import RunDir

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

Source = str | os.PathLike[str] | RunDir | Mapping[str, NDArray[Any]]


def to_pandas(source: Source) -> pd.DataFrame:
    """Make a pandas frame of a run, or of columns.

    Args:
        source: A metrics file, a run's directory, a `RunDir`; or what `read_columns` or `load_runs`
            gave.

    Returns:
        A row for each record; the columns are those of `read_columns`.

    Raises:
        ImportError: If pandas isn't installed.

    Examples:
        >>> with MetricsLogger("metrics.jsonl") as logger:
        ...     logger.write({"step": 0, "loss": 0.5})
        >>> to_pandas("metrics.jsonl")["loss"].max()
        np.float64(0.5)
    """
    try:
        import pandas as pd  # noqa: PLC0415 - optional
    except ModuleNotFoundError as error:
        raise ImportError("to_pandas needs pandas: pip install pandas") from error
    return pd.DataFrame(_columns(source))


def to_polars(source: Source) -> pl.DataFrame:
    """Make a polars frame of a run, or of columns.

    Args:
        source: A metrics file, a run's directory, a `RunDir`; or what `read_columns` or `load_runs`
            gave.

    Returns:
        A row for each record; the columns are those of `read_columns`, with text and lists as
        polars has them, and values of mixed kinds as objects. A number that is missing, or was
        NaN, is NaN.

    Raises:
        ImportError: If polars isn't installed.

    Examples:
        >>> with MetricsLogger("metrics.jsonl") as logger:
        ...     logger.write({"step": 0, "loss": 0.5})
        >>> to_polars("metrics.jsonl")["loss"].max()
        0.5
    """
    try:
        import polars as pl  # noqa: PLC0415 - optional
    except ModuleNotFoundError as error:
        raise ImportError("to_polars needs polars: pip install polars") from error
    columns = []
    for name, values in _columns(source).items():
        column = values.tolist() if values.dtype.kind == "O" else values
        try:
            columns.append(pl.Series(name, column))
        except (TypeError, ValueError, pl.exceptions.PolarsError):
            columns.append(pl.Series(name, column, dtype=pl.Object))
    return pl.DataFrame(columns)


def _columns(source: Source) -> Mapping[str, NDArray[Any]]:
    return source if isinstance(source, Mapping) else read_columns(source)

"""Many runs as one table: `load_runs`."""

from __future__ import annotations

import os
from collections.abc import Collection
from fnmatch import fnmatchcase
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vibe_rl.metrics.reading.columns import join_stretches, read_table
from vibe_rl.metrics.reading.fields import instead_of
from vibe_rl.metrics.reading.parts import Part, parts_of
from vibe_rl.metrics.reading.tail import head_records
from vibe_rl.run_dir import RunDir, find_runs

# The fields that an error names are those of so many runs.
_HEADS = 20


def load_runs(
    base_dir: str | os.PathLike[str] = "runs",
    pattern: str = "*",
    *,
    columns: Collection[str] | None = None,
) -> dict[str, NDArray[Any]]:
    """Read the records of many runs as one table.

    Args:
        base_dir: The directory of all runs.
        pattern: Which runs, by their ids: `"ppo_*"`.
        columns: Which fields of the records; None means all.

    Returns:
        Arrays with one value for each record, in the order in which the runs started: `"run"`, the
        run's id; `"seed"`, the record's own field or else that of the run's config; the config's
        fields as `"config/lr"`; and the metrics as `read_columns` gives them. `to_pandas` and
        `to_polars` take it.

    Raises:
        TypeError: If `columns` is a single text.
        ValueError: If no record of these runs has a field that is asked for.

    Examples:
        >>> load_runs("runs", "none_*")["run"]
        array([], dtype=object)
    """
    if isinstance(columns, str):
        raise TypeError(f"columns is a list of names, not a text: [{columns!r}]")
    runs = [run for run in find_runs(base_dir) if fnmatchcase(run.run_id, pattern)]
    wanted = None if columns is None else {"seed": None, **dict.fromkeys(columns)}
    table, rows = join_stretches(_run(run, wanted) for run in runs)
    found = {name: column.values for name, column in table.items()}
    for name in columns or ():
        if rows and name not in found:
            heads = (parts_of(head_records(run, 100), None) for run in runs[-_HEADS:])
            there = instead_of(name, chain(found, *heads))
            raise ValueError(f"no record of {len(runs)} runs has {name!r}; {there}")
    return {"run": found.pop("run", np.empty(0, object)), **found}


def _run(run: RunDir, wanted: Collection[str] | None) -> tuple[int, dict[str, Part]]:
    table, rows = read_table(run, wanted)
    config = _config(run)
    labels: dict[str, Any] = {"run": run.run_id}
    if "seed" in config and "seed" not in table:
        labels["seed"] = config["seed"]
    constant = parts_of([{**labels, "config": config}], None) if rows else {}
    return rows, {
        **{
            name: Part(np.repeat(part.values, rows), None)
            for name, part in constant.items()
            if part.present is None
        },
        **{name: Part(column.values, column.present) for name, column in table.items()},
    }


def _config(run: RunDir) -> dict[str, Any]:
    try:
        return run.load_config()
    except (OSError, ValueError):
        return {}

"""Many runs as one table: `load_runs`."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vibe_rl.metrics.reading.blocks import metrics_path
from vibe_rl.metrics.reading.columns import Stretch, join_stretches, run_stretches
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
        fields as `"config/lr"`; and the metrics as `read_columns` gives them, but for those that
        are called like the run's id or its config's fields. `to_pandas` and `to_polars` take it.

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
    table, rows = join_stretches(chain.from_iterable(_of_run(run, wanted) for run in runs))
    found = {name: column.values for name, column in table.items()}
    for name in columns or ():
        if rows and name not in found:
            heads = (parts_of(head_records(run, 100), None) for run in runs[-_HEADS:])
            there = instead_of(name, chain(found, *heads))
            raise ValueError(f"no record of {len(runs)} runs has {name!r}; {there}")
    return {"run": found.pop("run", np.empty(0, object)), **found}


def _of_run(run: RunDir, wanted: Collection[str] | None) -> Iterator[Stretch]:
    """The columns of a run's records, and what is said of the run, which no field replaces."""
    config = _config(run)
    said = parts_of([{"run": run.run_id, "seed": config.get("seed"), "config": config}], None)
    for rows, table in run_stretches(metrics_path(run), wanted):
        if not rows:
            continue
        parts = {
            name: Part(np.broadcast_to(part.values, rows), None) for name, part in said.items()
        }
        if own := table.get("seed"):
            parts["seed"] = own
            if "seed" in said and own.present is not None:
                seeds = np.where(own.present, own.values, said["seed"].values)
                parts["seed"] = Part(seeds, None)
        yield rows, {**parts, **table, **parts}


def _config(run: RunDir) -> dict[str, Any]:
    try:
        return run.load_config()
    except (OSError, ValueError):
        return {}

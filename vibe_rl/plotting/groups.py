"""Which runs belong together: by experiment, by run, or by fields of their configs."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vibe_rl.config_json import decode_config
from vibe_rl.metrics.reading.blocks import metrics_path, run_root
from vibe_rl.run_dir import RunDir

Run = str | os.PathLike[str] | RunDir

_STARTED = re.compile(r"_[0-9]{8}_[0-9]{6}(_[0-9]+)?")


def group_runs(runs: Sequence[Run], by: str = "experiment") -> dict[str, list[Run]]:
    """Group runs: each group is one line of a plot, and its runs are its seeds.

    Args:
        runs: Metrics files, runs' directories, or `RunDir`s.
        by: `"experiment"`: the run's id without its time. `"run"`: each by itself. Else names of
            fields of the runs' `config.json`, `"lr"` or `"optimizer.lr,gamma"`.

    Returns:
        The groups' names and runs, in order of appearance.

    Raises:
        ValueError: If a run has no config, or none with such a field.

    Examples:
        >>> group_runs(["runs/dqn_20260307_091241", "runs/dqn_20260307_094500"]).keys()
        dict_keys(['dqn'])
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_group(run, by), []).append(run)
    return groups


def _group(run: Run, by: str) -> str:
    root = _root(run)
    name = root.name.encode(errors="backslashreplace").decode()  # matplotlib takes UTF-8 alone
    if by == "run":
        return name
    if by == "experiment":
        return _STARTED.sub("", name)
    try:
        config = decode_config((root / "config.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{root.name} can't be grouped by {by}: it has no config.json") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{root.name} can't be grouped by {by}: {error}") from error
    return ", ".join(f"{name}={_field(config, name, root)}" for name in by.split(","))


def _field(config: dict[str, Any], name: str, root: Path) -> Any:
    value: Any = config
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            raise ValueError(
                f"the config of {root.name} has no {name!r}; it has {', '.join(config)}"
            )
        value = value[part]
    return value


def _root(run: Run) -> Path:
    path = metrics_path(run).absolute()
    return run_root(path) or path

"""Where a run's files live: `RunDir` makes or opens a run's directory, `find_runs` lists them."""

from __future__ import annotations

import operator
import os
import re
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

from vibe_rl.atomic import write_atomically
from vibe_rl.config_json import decode_config, encode_config
from vibe_rl.processes import agree
from vibe_rl.urls import is_url

# <experiment>_<YYYYMMDD_HHMMSS>, and _2, _3, … for further runs of the same second.
_RUN_ID = re.compile(r"(?P<experiment>.+)_(?P<started>[0-9]{8}_[0-9]{6})(_(?P<nth>[0-9]+))?")
_STARTED_FORMAT = "%Y%m%d_%H%M%S"


class RunDir:
    """The directory of one training run.

    A new run gets a directory of its own, named after the experiment and the local time; two runs
    that start in the same second, on whatever machine or process, get two directories.

        runs/pong_20260307_091241/
        ├── config.json     save_config
        ├── logs/           log_path: metrics.jsonl
        ├── checkpoints/    checkpoint_dir
        ├── videos/         video_path
        └── artifacts/      artifact_path

    In a job of several processes (`jax.distributed`), a new run's directory has the same name on
    all of them, so each must make its `RunDir`, and after `jax.distributed.initialize()`.

    A `RunDir` may stand wherever a path is taken (`os.fspath`). Its own path is absolute, so that
    it stays true when the program changes its working directory.

    Args:
        experiment_name: What the run is called in its directory's name; one path component.
            Not used when `run_id` is given.
        base_dir: The directory of all runs, made if missing; `~` is the home directory.
        run_id: The name of a run's directory in `base_dir`. Opens exactly that run, or creates it.

    Raises:
        ValueError: If `experiment_name` or `run_id` is not one path component, or `base_dir` is a
            URL or begins with `~` for a home directory that isn't known.
        TimeoutError: If the first process of the job does not make its `RunDir` within two minutes.

    Examples:
        >>> run = RunDir("pong")
        >>> path = run.save_config({"lr": 1e-3, "batch_size": 64})
        >>> later = RunDir(run_id=run.run_id)
    """

    def __init__(
        self,
        experiment_name: str = "default",
        base_dir: str | os.PathLike[str] = "runs",
        *,
        run_id: str | None = None,
    ) -> None:
        base = _local_path(base_dir)
        if run_id is None:
            experiment = _component("experiment_name", experiment_name)
            self._root = base / agree(
                f"the run directory of {experiment!r}",
                lambda: _make_new_root(base, experiment).name,
            )
        else:
            self._root = base / _component("run_id", run_id)
        for directory in (self.logs, self.checkpoints, self.videos, self.artifacts):
            directory.mkdir(parents=True, exist_ok=True)

    @property
    def run_id(self) -> str:
        """The name of the run's directory; `RunDir(run_id=...)` opens the run again."""
        return self._root.name

    @property
    def root(self) -> Path:
        """The run's directory, absolute."""
        return self._root

    @property
    def logs(self) -> Path:
        """The directory of the metrics."""
        return self._root / "logs"

    @property
    def checkpoints(self) -> Path:
        """The directory of the checkpoints."""
        return self._root / "checkpoints"

    @property
    def videos(self) -> Path:
        """The directory of the videos."""
        return self._root / "videos"

    @property
    def artifacts(self) -> Path:
        """The directory of whatever else the run produces."""
        return self._root / "artifacts"

    def log_path(self, filename: str = "metrics.jsonl") -> Path:
        """Return the path of a file in `logs`.

        Args:
            filename: The file's name; one path component, as for all paths given here.

        Returns:
            The path; nothing is created.
        """
        return self.logs / _component("filename", filename)

    def artifact_path(self, filename: str) -> Path:
        """Return the path of a file in `artifacts`; see `log_path`."""
        return self.artifacts / _component("filename", filename)

    def video_path(self, step: int, prefix: str = "eval") -> Path:
        """Return the path of the video of a step.

        Args:
            step: The training step, 0 or more.
            prefix: What the video shows.

        Returns:
            `videos/<prefix>_step_<step>.mp4`; nothing is created.
        """
        return self.videos / f"{_component('prefix', prefix)}_{_step_name(step)}.mp4"

    def checkpoint_dir(self, step: int) -> Path:
        """Return the directory for the checkpoint of a step.

        Nothing is created: a checkpoint counts from the moment its directory is there, so write
        it under another name and rename it, as orbax does.

        Args:
            step: The training step, 0 or more.

        Returns:
            `checkpoints/step_<step>`, in as many digits as make names sort like steps.
        """
        return self.checkpoints / _step_name(step)

    def list_checkpoints(self) -> list[Path]:
        """Return the directories of the checkpoints that exist, the earliest step first."""
        return [self.checkpoint_dir(step) for step in self._checkpoint_steps()]

    def latest_checkpoint(self) -> Path | None:
        """Return the directory of the checkpoint of the highest step, or None without any."""
        return next(reversed(self.list_checkpoints()), None)

    def mark_best(self, step: int) -> None:
        """Remember a checkpoint as the best one, in place of the one marked before.

        Args:
            step: The step of a checkpoint that exists.

        Raises:
            FileNotFoundError: If there is no checkpoint of that step.
        """
        self._existing_checkpoint(step)
        write_atomically(self._best_file, f"{operator.index(step)}\n".encode())

    def best_checkpoint(self) -> Path | None:
        """Return the directory of the checkpoint that `mark_best` marked.

        Returns:
            The directory, or None when none was marked.

        Raises:
            FileNotFoundError: If the marked checkpoint has been deleted.
        """
        step = self._best_step()
        return None if step is None else self._existing_checkpoint(step)

    def cleanup_checkpoints(self, keep: int = 5) -> list[Path]:
        """Delete all checkpoints but the latest ones and the best one.

        Args:
            keep: How many of the latest to keep, at least 1. The best one stays in any case.

        Returns:
            The directories that were deleted, the earliest step first.

        Raises:
            ValueError: If `keep` is less than 1.
        """
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}")
        steps = self._checkpoint_steps()
        kept = {*steps[-keep:], self._best_step()}
        deleted = [self.checkpoint_dir(step) for step in steps if step not in kept]
        for path in deleted:
            # Renamed first: whatever interrupts this, a checkpoint that is listed is whole.
            path.rename(path.with_name(f"{path.name}.{secrets.token_hex(4)}.deleted"))
        for remains in self.checkpoints.glob("step_*.deleted"):
            shutil.rmtree(remains)
        return deleted

    def save_config(self, config: object, filename: str = "config.json") -> Path:
        """Write the run's configuration as JSON, whole or not at all.

        Args:
            config: A dataclass, a mapping, a named tuple or an object with `to_dict()`; nested,
                with paths, enums, dates, sets, NumPy and JAX scalars and arrays inside.
            filename: The file's name in `root`; an existing file is replaced.

        Returns:
            The file's path.

        Raises:
            TypeError: If the config holds something that JSON can't; names the place.
        """
        path = self._root / _component("filename", filename)
        write_atomically(path, encode_config(config))
        return path

    def load_config(self, filename: str = "config.json") -> dict[str, Any]:
        """Read a configuration that `save_config` wrote.

        Args:
            filename: The file's name in `root`.

        Returns:
            The configuration in plain values: a dataclass comes back as a dict, a tuple as a
            list, a path as a string; NaN and infinities come back as they were.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is none that `save_config` wrote.
        """
        path = self._root / _component("filename", filename)
        try:
            return decode_config(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path} is no valid config: {error}") from error

    def __fspath__(self) -> str:
        return str(self._root)

    def __repr__(self) -> str:
        return f"RunDir({str(self._root)!r})"

    def __eq__(self, other: object) -> bool:
        return self._root == other._root if isinstance(other, RunDir) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._root)

    @property
    def _best_file(self) -> Path:
        return self.checkpoints / "best"

    def _best_step(self) -> int | None:
        try:
            return int(self._best_file.read_text())
        except FileNotFoundError:
            return None

    def _checkpoint_steps(self) -> list[int]:
        numbers = [path.name.removeprefix("step_") for path in self.checkpoints.glob("step_*/")]
        steps = sorted({int(number) for number in numbers if number.isdecimal()})
        # Only the name that `checkpoint_dir` gives counts, so that each step has one checkpoint.
        return [step for step in steps if self.checkpoint_dir(step).is_dir()]

    def _existing_checkpoint(self, step: int) -> Path:
        path = self.checkpoint_dir(step)
        if not path.is_dir():
            there = [path.name for path in self.list_checkpoints()]
            raise FileNotFoundError(f"there is no checkpoint {path}; there are: {there}")
        return path


def find_runs(
    base_dir: str | os.PathLike[str] = "runs", experiment_name: str | None = None
) -> list[RunDir]:
    """List the runs in a directory, the earliest first; nothing is created.

    Args:
        base_dir: The directory of all runs; a missing one holds none.
        experiment_name: Only runs of this experiment; None means all.

    Returns:
        The runs in the order in which they started, by the time in their directories' names. A run
        whose `run_id` names no time counts as its own experiment, and stands where its directory
        was last changed. Directories that are no runs are passed over.

    Raises:
        ValueError: If `base_dir` is a URL or begins with `~` for a home directory that isn't known.

    Examples:
        >>> latest = find_runs("runs", "pong")[-1]
        >>> path = latest.log_path()
    """
    base = _local_path(base_dir)
    found = []
    for root in base.iterdir() if base.exists() else ():
        if match := _RUN_ID.fullmatch(root.name):
            experiment, started, nth = match["experiment"], match["started"], match["nth"] or "1"
        elif (root / "logs").is_dir():
            changed = time.localtime(root.stat().st_mtime)
            experiment, started, nth = root.name, time.strftime(_STARTED_FORMAT, changed), "1"
        else:
            continue
        if root.is_dir() and experiment_name in (None, experiment):
            found.append((started, int(nth), root))
    return [_open_untouched(root) for *_, root in sorted(found)]


def _make_new_root(base: Path, experiment_name: str) -> Path:
    """Make a directory that nobody else has; `mkdir` is what decides between processes."""
    base.mkdir(parents=True, exist_ok=True)
    first = base / f"{experiment_name}_{time.strftime(_STARTED_FORMAT)}"
    root, nth = first, 1
    while True:
        try:
            root.mkdir()
        except FileExistsError:
            nth += 1
            root = first.with_name(f"{first.name}_{nth}")
        else:
            return root


def _open_untouched(root: Path) -> RunDir:
    """Open a run that exists, without making what its directory lacks."""
    run = RunDir.__new__(RunDir)
    run._root = root  # noqa: SLF001 - the rest of `__init__` is what must not run
    return run


def _local_path(base_dir: str | os.PathLike[str]) -> Path:
    if is_url(base_dir):
        raise ValueError(
            f"base_dir must be a local directory, got the URL {os.fspath(base_dir)!r}; "
            "write the run to a local disk, or mount the store, and copy it from there"
        )
    try:
        return Path(base_dir).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(
            "base_dir begins with ~ for a home directory that can't be determined, "
            f"got {os.fspath(base_dir)!r}"
        ) from error


def _component(argument: str, name: str) -> str:
    """Check that `name`, passed as `argument`, stays in the directory that it is put into."""
    if not isinstance(name, str):
        raise TypeError(f"{argument} must be a string, got {name!r}")
    if name in {"", ".", ".."} or set(name) & set("/\\\0"):
        raise ValueError(
            f"{argument} must be one path component, without '/' or '\\', got {name!r}"
        )
    return name


def _step_name(step: int) -> str:
    number = operator.index(step)
    if number < 0:
        raise ValueError(f"step must be 0 or more, got {step}")
    return f"step_{number:012}"

"""Which run is meant: `RUN` is a path, a run's id, the beginning of one, or `latest`."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from vibe_rl.cli import UsageError

if TYPE_CHECKING:
    from vibe_rl.run_dir import RunDir

LATEST = "latest"

# Of a file in which no record may be, so much is searched for one.
_SEARCHED_BYTES = 1 << 20
# An error names at most so many runs.
_NAMED = 4


def find_run(name: str, base_dir: str | os.PathLike[str] = "runs") -> Path:
    """Find the run that is meant by what a user typed.

    Args:
        name: The path of a run's directory or of a metrics file; or the id of a run in `base_dir`,
            or the beginning of one run's id; or `latest`, the run that was started last.
        base_dir: The directory of all runs.

    Returns:
        The run's directory, or the metrics file, as every reading function takes it.

    Raises:
        UsageError: If there is no such run, or more than one; names those that come near.
    """
    if name != LATEST and (path := _as_path(name)) is not None:
        return path
    roots = {run.run_id: run.root for run in all_runs(base_dir)}
    if not roots:
        raise _no_run(base_dir)
    if name == LATEST:
        return list(roots.values())[-1]
    newest_first = list(reversed(roots))
    begun = [run_id for run_id in newest_first if name and run_id.startswith(name)]
    if name in roots or len(begun) == 1:
        return roots[name if name in roots else begun[0]]
    if begun:
        raise UsageError(f"{name!r} begins {len(begun)} runs: {_some(begun)}; give more of one")
    near = [run_id for run_id in newest_first if name and name in run_id]
    near = near or get_close_matches(name, newest_first, n=_NAMED)
    hint = f"near it: {_some(near)}" if near else f"there are: {_some(newest_first)}"
    raise UsageError(f"{name!r} is no run in {_shown(base_dir)}; {hint}")


def all_runs(base_dir: str | os.PathLike[str]) -> list[RunDir]:
    """List the runs in a directory, the earliest first.

    Raises:
        UsageError: If there is no such directory.
    """
    from vibe_rl.run_dir import find_runs  # noqa: PLC0415 - --help shall not wait for NumPy

    try:
        found = find_runs(base_dir)
    except NotADirectoryError:
        raise UsageError(f"--base-dir is a directory of runs; {_shown(base_dir)} is none") from None
    except ValueError as error:
        raise UsageError(str(error)) from error
    if not found and not Path(base_dir).expanduser().exists():
        raise _no_run(base_dir)
    return found


def run_name(path: Path) -> str:
    """What a run that `find_run` gave is called: its id, or the path of a file of its own."""
    path = path if path.is_dir() else _root_of(path) or path
    return path.resolve().name if path.is_dir() else str(path)


def metrics_files(run: str | os.PathLike[str]) -> list[Path]:
    """A run's metrics files that are there: one, or, of a job, one for each process."""
    from vibe_rl.metrics.reading import blocks  # noqa: PLC0415 - as above

    return [file for file in blocks.metrics_files(run) if file.is_file()]


def _as_path(name: str) -> Path | None:
    path = Path(os.path.expanduser(name))  # noqa: PTH111 - leaves it as it is if there is no such user
    if path.is_file():
        root = _root_of(path)
        if root is None and not _may_hold_records(path):
            raise UsageError(f"{name!r} is no run: no line of it is a record")
        return root or path
    if (path / "logs").is_dir():
        return path
    if (path / "metrics.jsonl").is_file():  # a run's `logs`
        return _root_of(path / "metrics.jsonl") or path / "metrics.jsonl"
    if os.sep in name:
        raise UsageError(f"{name!r} is no run: {_why_not(path)}")
    return None


def _root_of(file: Path) -> Path | None:
    """The run's directory, if this is the metrics file in it."""
    from vibe_rl.metrics.reading.blocks import run_root  # noqa: PLC0415 - as above

    return run_root(file) if file.name == "metrics.jsonl" else None


def _may_hold_records(file: Path) -> bool:
    """Whether there is a record in the file, or nothing else yet."""
    from vibe_rl.metrics.reading.blocks import BLOCK  # noqa: PLC0415 - as above
    from vibe_rl.metrics.reading.tail import sample_records  # noqa: PLC0415

    # First at the end: a sample may come upon a line that is half of the file.
    if sample_records(file, start=max(file.stat().st_size - BLOCK, 0)).records:
        return True
    sample = sample_records(file, _SEARCHED_BYTES)
    return bool(sample.records) or not sample.corrupt


def _why_not(path: Path) -> str:
    return "it has no directory logs" if path.exists() else "there is no such file or directory"


def _no_run(base_dir: str | os.PathLike[str]) -> UsageError:
    return UsageError(f"there is no run in {_shown(base_dir)}; --base-dir says where runs are")


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")


def _shown(base_dir: str | os.PathLike[str]) -> str:
    return os.path.relpath(Path(base_dir).expanduser())

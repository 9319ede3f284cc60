"""The backends that a run was fed to before, and how `vibe-rl sync` makes them again."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any, NamedTuple


class Known(NamedTuple):
    """A shipped backend, as `vibe-rl sync` is told of it.

    Attributes:
        to: What its option `--to` says.
        options: The arguments of the backend's class.
    """

    to: str
    options: dict[str, Any]


def known_backends(path: Path) -> list[Known]:
    """The shipped backends that have a cursor beside a metrics file."""
    from vibe_rl.metrics.feed.cursor import saved_positions  # noqa: PLC0415 - imports NumPy

    found = (_known(identity, path) for identity in saved_positions(path))
    return [known for known in found if known]


def sync_command(identity: str, path: Path) -> str:
    """The command that delivers the rest of a metrics file to a backend, by its identity."""
    known = _known(identity, path)
    words = ["vibe-rl", "sync", os.fspath(path), "--to", known.to if known else "MODULE:CLASS"]
    if known and sum(each.to == known.to for each in known_backends(path)) > 1:
        for name, value in known.options.items():
            words += [
                "--option",
                f"{name}={os.path.relpath(value) if name == 'log_dir' else value}",
            ]
    return shlex.join(words)


def options_for(to: str, path: Path, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a shipped backend: what was given, else those of the one that was fed."""
    from vibe_rl.metrics.reading.blocks import run_root  # noqa: PLC0415 - imports NumPy

    known = [each.options for each in known_backends(path) if each.to == to]
    if to == "tensorboard":
        usual: dict[str, Any] = {"log_dir": path.parent}
        if "log_dir" in given or (len(known) != 1 and usual not in known):
            known = [usual]
        return {**(usual if usual in known else known[0]), **given}
    root = run_root(path) or path.parent
    if len(known) != 1:
        known = [{"project": project} for project in {each["project"] for each in known}]
    elif (root / "wandb_id.txt").exists() or {"id", "project"} & given.keys():
        known = [{"project": known[0]["project"]}]  # WandbBackend resumes the run of that file
    return {"run_dir": root, **(known[0] if len(known) == 1 else {}), **given}


def _known(identity: str, path: Path) -> Known | None:
    kind, _, rest = identity.partition(" ")
    what, splits, field = rest.partition(" split by ")
    split_by = {"split_by": field} if splits else {}
    if kind == "TensorBoardBackend":
        logs = path.absolute().parent
        for word, place in (("<logs>", logs), ("<run>", logs.parent)):
            if what == word or what.startswith(f"{word}/"):
                what = f"{place}{what.removeprefix(word)}"
        is_usual = Path(what) == logs
        return Known(
            "tensorboard", {"log_dir": path.parent if is_usual else Path(what), **split_by}
        )
    if kind == "WandbBackend":
        project, _, run_id = what.rpartition("/")
        return Known("wandb", {"project": project, "id": run_id, "resume": "must", **split_by})
    return None

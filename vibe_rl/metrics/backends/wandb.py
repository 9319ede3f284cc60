"""Weights & Biases: one run, resumed by the id that its directory keeps."""

from __future__ import annotations

import logging
import os
import re
import time as clock
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

from vibe_rl.atomic import write_atomically
from vibe_rl.config_json import decode_config, encode_config
from vibe_rl.metrics.backends.inert import makes_primary_only, primary_only
from vibe_rl.metrics.backends.parts import Parts
from vibe_rl.metrics.backends.transaction_log import TransactionLog
from vibe_rl.metrics.backends.writable import writable

_log = logging.getLogger("vibe_rl")

_ID_FILE = "wandb_id.txt"
# Seconds between two writes of W&B to its log on the disk. Its own default is 15: what a killed
# process loses.
_LOG_INTERVAL_S = 0.1
# How much longer than between two of its writes flush() waits for a log that does not grow.
_FLUSH_PATIENCE_S = 10.0


@primary_only
class WandbBackend:
    """Fans records out to a Weights & Biases run.

    Every record becomes a row with the time at which it was written, whatever its step: W&B drops
    no row because a step repeats or goes back, and its charts have `step` on their x axis.

    With `run_dir`, the run's id is kept in `<run_dir>/wandb_id.txt`; the next backend with that
    `run_dir` resumes the run. An explicit argument wins over that: `id="..."`, `resume="allow"`,
    `fork_from=...`.

    What is logged is safe from a crash once `flush()` returns: it is in W&B's own log of the run.
    After a crash, `wandb sync` uploads what W&B has not uploaded from there.

    In a job of several processes (`jax.distributed`), the first one has the run; on the others this
    makes a backend that does nothing.

    Args:
        project: The W&B project.
        entity: The user or team that owns the project; None: W&B's default.
        config: The run's configuration: a mapping or a dataclass, with values that `RunDir` can
            save, JAX and NumPy ones included.
        run_dir: Where the run's id is kept; made if missing. None: nowhere.
        split_by: A field, such as `"seed"`: records that have it go to a run of their own, with
            the id `<run_id>-seed-3`, and the field in its configuration. These runs have one
            `group`: the given one, or else `run_id`. Records with more values than 128 go to the
            run itself, with a warning. None: no field.
        **init_kwargs: What else `wandb.init` takes, such as `mode="offline"`, `name`, `dir`.

    Attributes:
        exit_code: What `close()` tells W&B about how the run ended: 0 is finished, anything else
            failed. None: finished. The logger sets it if the run fails.

    Raises:
        ImportError: If wandb is not installed.
        OSError: If `run_dir` or `dir` can't be written.
        TypeError: If `config` holds something that can't be saved; names the place.
        ValueError: If one of these is a URL, or this process has the run open already.
        wandb.Error: If W&B refuses, for example to resume a run that was deleted.

    Examples:
        >>> backend = WandbBackend(project="rl", config={"lr": 1e-3}, mode="offline")
        >>> backend.log({"step": 64, "loss": 0.7}, step=64)
        >>> backend.close()
    """

    def __init__(
        self,
        project: str = "vibe_rl",
        entity: str | None = None,
        config: Mapping[str, Any] | None = None,
        run_dir: str | os.PathLike[str] | None = None,
        *,
        split_by: str | None = None,
        **init_kwargs: Any,
    ) -> None:
        wandb = _library()
        self._parts = Parts(split_by, self._part)
        self._given = {"project": project, "entity": entity, "config": config, **init_kwargs}
        id_file = None if run_dir is None else writable(run_dir, "run_dir") / _ID_FILE
        saved = None if id_file is None else _saved_id(id_file)
        if saved and not init_kwargs.keys() & {"id", "resume_from", "fork_from"}:
            init_kwargs = {"id": saved, "resume": "must", **init_kwargs}
        settings = _settings(wandb, init_kwargs.pop("settings", None))
        if init_kwargs.get("dir"):
            mode = _resolved(wandb, settings, "mode", init_kwargs.get("mode"))
            if mode != "disabled":
                # Absolute, for W&B's service may have started in another directory.
                init_kwargs["dir"] = writable(init_kwargs["dir"], "dir")
        users = wandb.run
        _keep_apart(users, init_kwargs)
        self.exit_code: int | None = None
        self._run = wandb.init(
            project=project,
            entity=entity,
            config=None if config is None else decode_config(encode_config(config)),
            settings=settings,
            **init_kwargs,
        )
        _open_runs.add(self.run_id)
        if not self._run.disabled and self._run is not users:
            asked = _resolved(wandb, settings, "root_dir", init_kwargs.get("dir"))
            _warn_if_elsewhere(self._run.settings, asked)
        # A disabled run exists nowhere: there is nothing to resume.
        if id_file and self.run_id != saved and not self._run.disabled:
            _save_id(id_file, self.run_id)
        self._rows = 0
        self._has_steps = False
        self._disk = None
        if not (self._run.disabled or self._run.settings.x_skip_transaction_log):
            is_shared = self._run.settings.mode == "shared"  # between machines: it has no one count
            first = self._run.step if self._run is users and not is_shared else 0
            self._disk = TransactionLog(Path(self._run.settings.sync_file), first)

    @property
    def run_id(self) -> str:
        """The run's id, which is unique in its project."""
        return str(self._run.id)

    @property
    def identity(self) -> str:
        """What tells this backend from others on a metrics file: its run, what splits it."""
        return f"WandbBackend {self._run.project}/{self.run_id}{self._parts.suffix}"

    def log(self, record: dict[str, Any], step: int | None = None) -> None:
        """Add a record as a row of now.

        Args:
            record: Plain Python values.
            step: The row's `step`, if the record has none.
        """
        self.log_at(record, step, time=clock.time(), ordinal=None)

    def log_at(
        self, record: dict[str, Any], step: int | None, *, time: float, ordinal: int | None
    ) -> None:
        """Add a record as a row.

        Args:
            record: Plain Python values.
            step: The row's `step`, if the record has none.
            time: When the record was written, in epoch seconds.
            ordinal: The record's number in the metrics file, from 0; None if unknown.
        """
        if (part := self._parts.of(record)) is not None:
            part.log_at(record, step, time=time, ordinal=ordinal)
            return
        row = {"_timestamp": time, **record}
        if step is not None:
            row.setdefault("step", step)
        if type(row.get("step")) in (int, float) and not self._has_steps:
            # W&B drops rows whose own step goes back, so ours is a value like others, and W&B's
            # counts rows. Only now, for a chart over a step that never comes would stay empty, and
            # W&B gives rows without one that of the last row, or 0.
            self._run.define_metric("*", step_metric="step")
            self._has_steps = True
        self._run.log(row, **self._numbering(ordinal))
        self._rows += 1

    def flush(self) -> None:
        """Wait until the rows are in W&B's log on the disk, from which it uploads them.

        Raises:
            TimeoutError: If the log has not grown for 10 s longer than W&B takes between two writes
                to it: 0.1 s, but 15 s in a run that you started yourself.
        """
        for part in self._parts:
            part.flush()
        self._flush()

    def _flush(self) -> None:
        if self._disk is None:
            return
        # Not ours if the run was there before us.
        patience = self._run.settings.x_transaction_log_flush_interval + _FLUSH_PATIENCE_S
        seen, since = -1, clock.monotonic()
        while (rows := self._disk.rows()) < self._rows:
            if rows > seen:
                seen, since = rows, clock.monotonic()
            elif clock.monotonic() > since + patience:
                raise TimeoutError(f"W&B has not saved {self._rows - rows} rows of {self.identity}")
            clock.sleep(_LOG_INTERVAL_S / 5)

    def close(self) -> None:
        """Upload what is left, and tell W&B how the run ended; see `exit_code`.

        Raises:
            TimeoutError: As `flush()` does.
        """
        with ExitStack() as stack:  # closes the others if one raises
            stack.callback(self._close)
            for part in self._parts:
                part.exit_code = self.exit_code
                stack.callback(part.close)

    def _close(self) -> None:
        _open_runs.discard(self.run_id)
        try:
            self._run.finish(exit_code=self.exit_code)
            self._flush()  # finish() returns before W&B's own process has written everything
        finally:
            if self._disk is not None:
                self._disk.close()

    def _part(self, value: Any, label: str) -> WandbBackend:
        """The backend of the records in which `split_by` has this value."""
        given = {k: v for k, v in self._given.items() if k not in ("resume_from", "fork_from")}
        if given.get("name"):
            given["name"] = f"{given['name']} {label}"
        config = encode_config({} if given["config"] is None else given["config"])
        given["config"] = {**decode_config(config), self._parts.field: value}
        given |= {"group": given.get("group") or self.run_id, "reinit": "create_new"}
        given["dir"] = self._run.settings.root_dir
        # The id is known from run to run, so a part goes on where it was.
        return WandbBackend(**{**given, "id": f"{self.run_id}-{label}", "resume": "allow"})

    def _numbering(self, ordinal: int | None) -> dict[str, Any]:
        """Where W&B's own count of rows goes on when an offline run is resumed.

        Offline, W&B doesn't know how many rows it had, and counts from 0 in a second directory.
        """
        if self._rows or not ordinal or not self._run.offline:
            return {}
        return {"step": max(ordinal, self._run.step), "commit": True}


@makes_primary_only
def resume_wandb(
    run_dir: str | os.PathLike[str],
    *,
    project: str = "vibe_rl",
    entity: str | None = None,
    config: Mapping[str, Any] | None = None,
    **init_kwargs: Any,
) -> WandbBackend:
    """Go on with the W&B run of a directory, or start one there if it has none.

    Args:
        run_dir: A directory that was a `WandbBackend`'s `run_dir`.
        project: The W&B project.
        entity: The user or team that owns the project; None: W&B's default.
        config: What to add to the run's configuration.
        **init_kwargs: What else `wandb.init` takes.

    Returns:
        The backend: `WandbBackend` with the same arguments.

    Raises:
        Exception: What `WandbBackend` raises.

    Examples:
        >>> backend = resume_wandb("runs/example", project="rl", mode="offline")
        >>> backend.close()
    """
    return WandbBackend(project, entity, config, run_dir, **init_kwargs)


# The runs that backends of this process have open.
_open_runs: set[str] = set()


def _library() -> ModuleType:
    try:
        import wandb  # noqa: PLC0415 - optional
        from wandb import init  # noqa: F401, PLC0415 - absent in W&B's output directory ./wandb
    except ImportError as error:
        raise ImportError("WandbBackend needs wandb: pip install 'vibe-rl[wandb]'") from error
    return wandb


def _settings(wandb: ModuleType, given: Any) -> Any:
    settings = (
        given.model_copy() if isinstance(given, wandb.Settings) else wandb.Settings(**given or {})
    )
    if "x_transaction_log_flush_interval" not in settings.model_fields_set:
        settings.x_transaction_log_flush_interval = _LOG_INTERVAL_S
    return settings


def _resolved(wandb: ModuleType, settings: Any, name: str, argument: Any) -> Any:
    """A setting as W&B resolves it: from its argument, our settings, or else its environment."""
    if argument is not None:
        return argument
    return getattr(settings if name in settings.model_fields_set else wandb.setup().settings, name)


def _warn_if_elsewhere(settings: Any, asked: str | Path) -> None:
    """W&B keeps a run in the temporary directory if it can't where it should, and goes on."""
    if Path(settings.root_dir) != Path(asked):
        _log.warning(
            "%s can't be written: W&B run %s is in %s, which a reboot may delete; dir=... says "
            "where else to keep it",
            *(asked, settings.run_id, settings.sync_dir),
        )


def _keep_apart(active: Any, init_kwargs: dict[str, Any]) -> None:
    """Make a run of its own, unless the user's own active run is meant.

    While a run is active, `wandb.init` returns that one, whatever it is asked for.
    """
    wanted = init_kwargs.get("id")
    if wanted in _open_runs:
        raise ValueError(
            f"the W&B run {wanted!r} is open in this process already; close its backend first"
        )
    if active is not None and (active.id in _open_runs or wanted not in (None, active.id)):
        init_kwargs.setdefault("reinit", "create_new")


def _saved_id(file: Path) -> str | None:
    """The id that a directory keeps; None, with a warning, if there is a file without an id."""
    try:
        text = file.read_text("utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        _log.warning("%s can't be read (%s): starting a new W&B run", file, error)
        return None
    if not re.fullmatch(r"[^\s:;,#?/']{1,128}", text):
        _log.warning("%s holds no run's id, but %.40r: starting a new W&B run", file, text)
        return None
    return text


def _save_id(file: Path, run_id: str) -> None:
    try:
        write_atomically(file, run_id.encode())
    except OSError as error:  # the run is under way: better one that can't be resumed than none
        _log.warning("%s can't be written (%s): W&B run %s won't be resumed", file, error, run_id)

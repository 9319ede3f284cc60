"""`vibe-rl sync`: deliver to a backend what it has not had yet of a run."""

from __future__ import annotations

import importlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg

from vibe_rl.cli import UsageError
from vibe_rl.cli.known_backends import options_for
from vibe_rl.cli.select import find_run
from vibe_rl.cli.text import printable

if TYPE_CHECKING:
    from vibe_rl.metrics import LogBackend
    from vibe_rl.metrics.feed.feed import Feed


def sync(
    run: Annotated[Positional[str], arg(metavar="RUN")],
    *,
    to: Annotated[str, arg(metavar="tensorboard|wandb|MODULE:CLASS")],
    option: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME=VALUE")] = (),
    from_start: bool = False,
    base_dir: Annotated[str, arg(metavar="DIR")] = "runs",
) -> None:
    """Deliver to a backend what it has not had yet of a run.

    Args:
        run: A path, an id, the beginning of one, or latest.
        to: The backend: TensorBoard's files and the W&B run that the run was logged to,
            else new ones beside the metrics file; or a class of your own.
        option: An argument of the backend's class, such as project=rl or mode=offline. May be
            given several times.
        from_start: Deliver everything, even what the backend has had.
        base_dir: The directory of all runs.
    """
    # Here, because --help shall not wait for NumPy.
    from vibe_rl.metrics import setup_logging  # noqa: PLC0415
    from vibe_rl.metrics.append import process_paths  # noqa: PLC0415
    from vibe_rl.metrics.feed.cursor import Cursor, CursorInUseError  # noqa: PLC0415
    from vibe_rl.metrics.feed.feed import Feed  # noqa: PLC0415
    from vibe_rl.metrics.lines import Position  # noqa: PLC0415
    from vibe_rl.metrics.reading.blocks import metrics_path, read_blocks, records_of  # noqa: PLC0415

    setup_logging()
    path = metrics_path(find_run(run, base_dir))
    if not path.is_file():
        others = [os.path.relpath(file) for file in process_paths(path)]
        instead = f"; a job's processes have {', '.join(others)}: sync each" if others else ""
        raise UsageError(
            f"{run!r} has no records: there is no file {os.path.relpath(path)}{instead}"
        )
    if path.stat().st_size and not any(records_of(block.text) for block in read_blocks(path)):
        raise UsageError(f"{run!r} is no run: no line of {os.path.relpath(path)} is a record")
    backend, identity = _make(to, path, dict(_parse(each) for each in option))
    name = type(backend).__name__
    try:
        Cursor(path, identity).close()
    except CursorInUseError:
        backend.close()
        raise _in_use(name, path) from None
    feed = Feed(backend, path, Position(0, 0), name=name, from_start=from_start, paced=False)
    delivered = _show(feed)
    stats = feed.stats
    where = printable(os.path.relpath(path))
    print(f"{name} took {stats.logged} records of {where}; {stats.failed} failed")
    if delivered and not (stats.logged or stats.failed or from_start):
        print("It has had everything; --from-start delivers it again")
    if not delivered:
        raise OSError(f"{name} did not take everything: {stats.behind} bytes are left")


def _show(feed: Feed) -> bool:
    """Wait until everything is delivered, with a progress bar; False if it was not."""
    from rich.progress import Progress  # noqa: PLC0415 - as above

    total = max(feed.stats.behind, 1)  # a bar of nothing is never full
    with Progress() as progress, ThreadPoolExecutor(1) as pool:
        bar = progress.add_task(feed.name, total=total)
        delivered = pool.submit(feed.wait, feed.ask(close=True), None)
        try:
            while wait_for([delivered], timeout=0.1).not_done:
                progress.update(bar, completed=total - feed.stats.behind)
        except BaseException:  # Ctrl-C
            feed.abandon()
            raise
        progress.update(bar, completed=total - feed.stats.behind)
        return delivered.result()


def _make(to: str, path: Path, options: dict[str, Any]) -> tuple[LogBackend, str]:
    """The backend, and what tells it from others."""
    from vibe_rl.metrics import LogBackend, TensorBoardBackend, WandbBackend  # noqa: PLC0415
    from vibe_rl.metrics.feed.cursor import identity_of, is_in_use  # noqa: PLC0415

    shipped = {"tensorboard": TensorBoardBackend, "wandb": WandbBackend}
    make: Any = shipped.get(to) or _find(to)
    if to in shipped:
        options = options_for(to, path, options)
    # Before it is built, for that would resume a run that is under way, and then finish it.
    if to == "wandb" and is_in_use(path, WandbBackend.__name__):
        raise _in_use(WandbBackend.__name__, path)
    with ExitStack() as stack:
        try:
            backend = make(**options)
            if isinstance(backend, LogBackend):
                stack.callback(backend.close)
                identity = identity_of(backend, 0)
                stack.pop_all()
                return backend, identity
        except (ImportError, OSError):
            raise
        except (Exception, SystemExit) as error:  # whatever the service's library or a class raises
            raise UsageError(f"{to} can't be built: {_line(error)}") from error
    raise UsageError(f"{to} makes no backend: it has to have methods log and close")


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _find(to: str) -> Any:
    module, _, name = to.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        return getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # whatever the module does as it is imported
        expected = "tensorboard, wandb, or an importable MODULE:CLASS"
        raise UsageError(f"--to is {expected}; not {to!r}: {_line(error)}") from error


def _parse(option: str) -> tuple[str, Any]:
    name, equals, value = option.partition("=")
    if not (name.isidentifier() and equals):
        raise UsageError(f"--option is NAME=VALUE, not {option!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _in_use(name: str, path: Path) -> UsageError:
    return UsageError(
        f"{name} is being fed from {os.path.relpath(path)} by a running logger; it gets everything"
    )

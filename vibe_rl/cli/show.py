"""`vibe-rl show`: one run's settings, metrics, backends and alarms."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from vibe_rl.cli.known_backends import sync_command
from vibe_rl.cli.select import LATEST, find_run, run_name
from vibe_rl.cli.text import encodable, printable

if TYPE_CHECKING:
    from vibe_rl.cli.summary import BackendProgress, Summary
    from vibe_rl.cli.table import Cell
    from vibe_rl.metrics.alarms import Alarm
    from vibe_rl.metrics.reading.state import RunState

# A file up to this size is read as a whole: a few seconds.
_MOST_BYTES = 1 << 25


def show(
    run: Annotated[Positional[str], arg(metavar="[RUN]")] = LATEST,
    *,
    base_dir: Annotated[str, arg(metavar="DIR")] = "runs",
    exact: bool = False,
    json: bool = False,
) -> None:
    """Show a run's settings, its metrics in numbers, and how far its backends are.

    Args:
        run: A path, an id, the beginning of one, or latest.
        base_dir: The directory of all runs.
        exact: Read all of a file that is larger than 32 MB; otherwise, least and greatest values
            are those of a sample, and a metric that few records have may not be listed. First and
            last values, and those that are not finite, are exact.
        json: Print one JSON object.
    """
    # Here, because --help shall not wait for NumPy.
    from vibe_rl.cli.summary import backends, summarise  # noqa: PLC0415
    from vibe_rl.metrics.alarms import read_alarms  # noqa: PLC0415
    from vibe_rl.metrics.jsonl import encode  # noqa: PLC0415
    from vibe_rl.metrics.reading.fields import flat  # noqa: PLC0415
    from vibe_rl.metrics.reading.state import run_state  # noqa: PLC0415

    path = find_run(run, base_dir)
    config = _config(path)
    state = run_state(path)
    summary = summarise(path, None if exact else _MOST_BYTES)
    progress, alarms = backends(path), read_alarms(path)
    if json:
        found = {
            "run": encodable(run_name(path)),
            "path": encodable(str(path)),
            **asdict(state),
            "config": config,
            **asdict(summary),
            "backends": [asdict(backend) for backend in progress],
            "alarms": [asdict(alarm) for alarm in alarms],
        }
        sys.stdout.buffer.write(encode(found))
        return
    _print_table([[(run_name(path), "bold"), *_state(state)]])
    _print_section("config", [[name, str(value)] for name, value in flat(config or {}, ".")], "<<")
    _print_metrics(summary)
    _print_section("backends", [_progress(each, path) for each in progress], "<<")
    _print_section("alarms", _alarms(alarms), "<<")
    if summary.corrupt:
        print(f"vibe-rl: lines of it that are no records: {summary.corrupt}", file=sys.stderr)
    if summary.torn and state.state != "running":  # then, it may be an append under way
        print(f"vibe-rl: its last line is torn: {summary.torn} bytes", file=sys.stderr)
    if not summary.metrics:
        print(f"vibe-rl: {printable(run_name(path))} has no records yet", file=sys.stderr)


def _config(path: Path) -> dict[str, Any] | None:
    """The run's settings; None if it has saved none that can be read."""
    from vibe_rl.config_json import decode_config  # noqa: PLC0415 - as above

    try:
        return decode_config((path / "config.json").read_bytes())
    except (OSError, ValueError):
        return None


def _state(state: RunState) -> list[Cell]:
    if state.opened is None:
        return [("no logger has written it", "dim")]
    from vibe_rl.cli.text import duration  # noqa: PLC0415 - as above

    colour = {"running": "green", "crashed": "red"}.get(state.state, "")
    why = ""
    if state.state == "crashed":
        why = f" ({state.how or 'it was killed'})"
    span = duration((state.ended or time.time()) - state.opened)
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(state.opened))
    return [(state.state + why, colour), f"started {started}, {span}"]


def _print_metrics(summary: Summary) -> None:
    from vibe_rl.cli.text import short  # noqa: PLC0415 - as above

    title = "metrics"
    if summary.fraction < 1:
        read = f"{summary.fraction:.1%} of the file"
        title += f" (count, min, max of a sample, {read}; --exact reads all)"
    rows: list[list[Cell]] = [
        [(name, "dim") for name in ("", "count", "first", "last", "min", "max", "not finite")]
    ]
    for each in summary.metrics:
        bad = ""
        if each.nonfinite:
            bad = f"{each.nonfinite}, first at step {short(each.nonfinite_step)}"
        numbers = (each.first, each.last, each.min, each.max)
        rows.append(
            [
                each.metric,
                str(each.count),
                *((short(n), "" if math.isfinite(n) else "red") for n in numbers),
                (bad, "red"),
            ]
        )
    _print_section(title, rows if summary.metrics else [], "<>>>>><")


def _progress(backend: BackendProgress, path: Path) -> list[Cell]:
    if not backend.behind:
        return [backend.backend, "has everything"]
    behind = f"{backend.behind} records behind"
    if backend.fed:
        return [backend.backend, f"{behind}, being fed"]
    return [backend.backend, (f"{behind}: {sync_command(backend.backend, path)}", "yellow")]


def _alarms(alarms: list[Alarm]) -> list[list[Cell]]:
    from vibe_rl.cli.text import exact  # noqa: PLC0415 - as above

    rows: list[list[Cell]] = []
    for each in alarms:
        # That of a user's check doesn't name its step itself.
        step = "" if each.metric or each.step is None else f" at step {exact(each.step)}"
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each.time))
        rows.append([when, (each.message + step, "red")])
    return rows


def _print_section(title: str, rows: list[list[Cell]], alignment: str) -> None:
    if rows:
        _print_table([[""], [(title, "bold")]])
        _print_table(
            [["  " + row[0] if isinstance(row[0], str) else row[0], *row[1:]] for row in rows],
            alignment,
        )


def _print_table(rows: list[list[Cell]], alignment: str = "<<<") -> None:
    from vibe_rl.cli.table import Columns, Terminal  # noqa: PLC0415 - as above

    Terminal().show(Columns(alignment, rows).lines(rows))

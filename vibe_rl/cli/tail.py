"""`vibe-rl tail`: a run's newest records, and those that follow."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg

from vibe_rl.cli import UsageError
from vibe_rl.cli.select import LATEST, find_run, metrics_files, run_name

if TYPE_CHECKING:
    from vibe_rl.metrics.reading.tail import Sample

# The fields that an error names are those of a sample of so much of each file.
_SEARCHED_BYTES = 1 << 20

Show = Callable[[list[dict[str, Any]]], None]


def tail(
    run: Annotated[Positional[str], arg(metavar="[RUN]")] = LATEST,
    *,
    base_dir: Annotated[str, arg(metavar="DIR")] = "runs",
    follow: Annotated[bool, arg(aliases=["-f"])] = False,
    newest: Annotated[int, arg(aliases=["-n"], metavar="N")] = 10,
    column: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME")] = (),
    json: bool = False,
) -> None:
    """Show a run's newest records, and with -f those that follow, until the run ends.

    Args:
        run: A path, an id, the beginning of one, or latest.
        base_dir: The directory of all runs.
        follow: Go on as records land; ends with the run, or at Ctrl-C.
        newest: How many records to begin with, of each process if a job has several.
        column: A field to show; may be given several times. Without it, as many as fit.
        json: Print the records as JSON Lines, as they stand in the file.
    """
    if newest < 0:
        raise UsageError(f"--newest is a number of records, 0 or more, not {newest}")
    path = find_run(run, base_dir)
    show = _shower(column, follow=follow, json=json)
    if follow:
        _follow(path, newest, show)
        print(f"vibe-rl: {run_name(path)} {_end(path)}", file=sys.stderr)
        return
    from vibe_rl.metrics.reading.tail import tail_records  # noqa: PLC0415 - see `_shower`

    samples = [tail_records(file, newest) for file in metrics_files(path)]
    _check_columns(column, path, samples)
    for sample in samples:
        show(sample.records)
    if newest and not any(sample.records for sample in samples):
        print(f"vibe-rl: {run_name(path)} has no records yet; -f waits for them", file=sys.stderr)


def _check_columns(column: tuple[str, ...], path: Path, samples: Iterable[Sample]) -> None:
    """Refuse a field that no record has."""
    from vibe_rl.metrics.reading.fields import flat, instead_of  # noqa: PLC0415 - see `_shower`
    from vibe_rl.metrics.reading.search import find_records  # noqa: PLC0415
    from vibe_rl.metrics.reading.tail import sample_records  # noqa: PLC0415

    there = {name for sample in samples for record in sample.records for name, _ in flat(record)}
    if there.issuperset(column):
        return
    for file in metrics_files(path):
        for record in sample_records(file, _SEARCHED_BYTES).records:
            there.update(name for name, _ in flat(record))
        there.update(find_records(file, set(column) - there, last=True))
    for name in column:
        if there and name not in there:
            raise UsageError(f"no record has a field {name!r}; {instead_of(name, sorted(there))}")


def _follow(path: Path, newest: int, show: Show) -> None:
    """Show the newest records, and what lands after them, until the run ends."""
    from vibe_rl.metrics.reading.follow import tail_and_follow  # noqa: PLC0415 - see `_shower`

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of lines that are no records
        for records in tail_and_follow(path, newest):
            show(records)


def _end(path: Path) -> str:
    from vibe_rl.metrics.reading.state import run_state  # noqa: PLC0415 - see `_shower`

    state = run_state(path)
    return "finished" if state.state == "finished" else f"crashed: {state.how or 'it was killed'}"


def _shower(column: tuple[str, ...], *, follow: bool, json: bool) -> Show:
    # Here, because --help shall not wait for NumPy.
    from vibe_rl.cli.records import RecordTable  # noqa: PLC0415
    from vibe_rl.metrics.jsonl import encode  # noqa: PLC0415

    def write_lines(records: list[dict[str, Any]]) -> None:
        sys.stdout.buffer.write(b"".join(map(encode, records)))
        sys.stdout.buffer.flush()

    return write_lines if json else RecordTable(column, grows=follow).show

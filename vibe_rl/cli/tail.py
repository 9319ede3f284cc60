"""`vibe-rl tail`: a run's newest records, and those that follow."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg

from vibe_rl.cli import UsageError
from vibe_rl.cli.select import LATEST, find_run, metrics_files, run_name

if TYPE_CHECKING:
    from vibe_rl.metrics.reading.tail import Sample

# Between two looks at a file that is followed.
_LOOK_S = 0.2
# A field that the newest records lack is looked for in so much of each file.
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
    from vibe_rl.metrics.reading.tail import tail_records  # noqa: PLC0415 - see `_shower`

    path = find_run(run, base_dir)
    show = _shower(column, follow=follow, json=json)
    samples = {file: tail_records(file, newest) for file in metrics_files(path)}
    if not follow:  # what is yet to come may have any field
        _check_columns(column, path, samples.values())
    for sample in samples.values():
        show(sample.records)
    if follow:
        for records in _follow(path, samples):
            show(records)
        print(f"vibe-rl: {run_name(path)} {_end(path)}", file=sys.stderr)
    elif newest and not any(sample.records for sample in samples.values()):
        print(f"vibe-rl: {run_name(path)} has no records yet; -f waits for them", file=sys.stderr)


def _check_columns(column: tuple[str, ...], path: Path, samples: Iterable[Sample]) -> None:
    """Refuse a field that no record has, as far as is known of a large file."""
    from vibe_rl.metrics.reading.fields import flat, instead_of  # noqa: PLC0415 - see `_shower`
    from vibe_rl.metrics.reading.tail import sample_records  # noqa: PLC0415

    there = {name for sample in samples for record in sample.records for name, _ in flat(record)}
    if there.issuperset(column):
        return
    for file in metrics_files(path):
        for record in sample_records(file, _SEARCHED_BYTES).records:
            there.update(name for name, _ in flat(record))
    for name in column:
        if there and name not in there:
            raise UsageError(f"no record has a field {name!r}; {instead_of(name, sorted(there))}")


def _follow(path: Path, samples: dict[Path, Sample]) -> Iterator[list[dict[str, Any]]]:
    """What lands after the samples in the run's files, until the run ends."""
    from vibe_rl.metrics.reading.state import run_state  # noqa: PLC0415 - see `_shower`
    from vibe_rl.metrics.reading.tail import sample_records  # noqa: PLC0415

    has_ended = came = False
    while came or not has_ended:
        # Asked before the last look at the files, so that nothing can come after it.
        has_ended, came = run_state(path).state in ("finished", "crashed"), False
        for file in metrics_files(path):
            last = samples.get(file)
            start, file_id = (last.end, last.file_id) if last else (0, None)
            samples[file] = sample = sample_records(file, start=start, file_id=file_id)
            if sample.records:
                came = True
                yield sample.records
        if not came and not has_ended:
            time.sleep(_LOOK_S)


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

"""Cursors: what a backend has had, remembered beside the file."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorders import FileBackend, Unflushed, is_complete, taken

from vibe_rl.metrics import MetricsLogger, isolated, read_metrics
from vibe_rl.metrics.feed.cursor import (
    Cursor,
    CursorInUseError,
    cursor_path,
    cursors_moved,
    identity_of,
)
from vibe_rl.metrics.feed.feed import Feed
from vibe_rl.metrics.lines import Lines, Position


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "run" / "logs" / "metrics.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(f'{{"i": {i}}}\n' for i in range(10)))
    return path


START = Position(0, 0)


def seek(path, start=START, identity="B"):
    """Where a backend goes on."""
    cursor, lines = Cursor(path, identity), Lines(path, START)
    cursor.seek(lines, start)
    cursor.close()
    lines.close()
    return lines.position


def save(path, line, identity="B"):
    """Save the position before a line."""
    lines, cursor = Lines(path, START), Cursor(path, identity)
    for _ in range(line):
        lines.pass_over(lines.peek())
    cursor.save(lines.position, lines.file_id())
    cursor.close()
    lines.close()
    return lines.position


def test_a_new_backend_begins_where_it_is_told(path):
    assert seek(path, Position(30, 3)) == Position(30, 3)


def test_a_saved_position_comes_back_and_belongs_to_one_identity(path):
    position = save(path, 4)
    assert position.ordinal == 4
    assert seek(path) == position
    assert seek(path, identity="another") == START


def test_a_cursor_gets_no_shorter_in_place_and_stays_json(path):
    save(path, 10)
    save(path, 1)
    assert json.loads(cursor_path(path, "B").read_bytes())["ordinal"] == 1


def test_one_cursor_has_one_user_here_and_in_other_processes(path):
    cursor = Cursor(path, "B")
    with pytest.raises(CursorInUseError, match="in use"):
        Cursor(path, "B")
    script = (
        "import sys; from pathlib import Path; from vibe_rl.metrics.feed.cursor import Cursor\n"
        "Cursor(Path(sys.argv[1]), 'B')"
    )
    process = [sys.executable, "-c", script, path]
    assert b"CursorInUseError" in subprocess.run(process, capture_output=True, check=False).stderr
    cursor.close()
    subprocess.run(process, check=True)


@contextlib.contextmanager
def forked(fork):
    """A child that lives on meanwhile."""
    child = fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize("hold", ["cursor", "cursors_moved"])
def test_a_child_that_python_does_not_know_of_keeps_no_cursor_in_use(path, hold):
    save(path, 4)
    holds = {
        "cursor": lambda: contextlib.closing(Cursor(path, "B")),
        "cursors_moved": lambda: cursors_moved(path, path, lambda byte: byte, None, restart=0),
    }
    with contextlib.ExitStack() as children:
        with holds[hold]():
            # C's own fork calls no handler of Python's; a child of os.fork() may be late with it.
            children.enter_context(forked(ctypes.PyDLL(None).fork))
        Cursor(path, "B").close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*fork.*:RuntimeWarning")
def test_a_forked_child_that_ends_leaves_the_cursor_to_its_parent(tmp_path):
    path, backend = tmp_path / "metrics.jsonl", FileBackend(tmp_path / "a")
    with MetricsLogger(path, [backend]) as logger:
        if (child := os.fork()) == 0:
            logger.close()
            os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(CursorInUseError):
            Cursor(path, identity_of(backend, 0))


def test_a_run_that_is_moved_takes_its_cursors_along(path):
    identity = f"TensorBoardBackend {path.parent.parent / 'tb'}"
    position = save(path, 4, identity)
    moved = path.parent.parent.rename(path.parent.parent.with_name("renamed"))
    assert seek(moved / "logs" / path.name, identity=f"TensorBoardBackend {moved / 'tb'}") == (
        position
    )


@pytest.mark.parametrize(
    "text",
    [
        b"\x00" * 80,
        b"[]",
        b"{}",
        b'{"byte": -1, "ordinal": 0, "file": null}',
        b'{"byte": "20", "ordinal": 2, "file": null}',
        b'{"byte": 20, "ordinal": 9223372036854775808, "file": null}',
        b'{"byte": 1e30, "ordinal": 1, "file": null}',
        b'{"byte": true, "ordinal": false, "file": null}',
        b'{"byte": 20, "ordinal": 2, "file": 3}',
        b'{"byte": 20, "ord',
    ],
)
def test_a_cursor_that_makes_no_sense_is_warned_of_and_passed_over(path, text, caplog):
    cursor_path(path, "B").write_bytes(text)
    assert seek(path, Position(30, 3)) == Position(30, 3)
    assert "no cursor" in caplog.text


@given(st.binary(max_size=300))
def test_any_bytes_are_safe_in_a_cursor(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    path.write_bytes(b"{}\n")
    cursor_path(path, "B").write_bytes(text)
    assert seek(path).byte in (0, 3)


def test_a_cursor_beyond_the_end_goes_on_at_the_end(path, caplog):
    save(path, 10)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:5]))
    assert seek(path).ordinal == 5
    assert "cut short" in caplog.text


def test_a_cursor_of_another_file_of_that_name_counts_as_none(path, caplog):
    save(path, 4)
    path.write_text('{"i": "another"}\n' * 20)
    assert seek(path, Position(17, 1)) == Position(17, 1)
    assert "another file" in caplog.text


def test_identity_is_given_or_the_name_or_the_class_and_its_place():
    class Plain: ...

    class Named:
        name = "mine"

    class Identified(Named):
        identity = "mine at /here"

    assert identity_of(Identified(), 0) == "mine at /here"
    assert identity_of(Named(), 0) == "mine"
    assert identity_of(Plain(), 0) != identity_of(Plain(), 1)
    assert identity_of(Plain(), 1) == identity_of(Plain(), 1)


# -- in the hands of a logger ---------------------------------------------------------------------


def write(path, numbers, *backends):
    with MetricsLogger(path, backends=backends) as logger:
        for i in numbers:
            logger.write({"i": i})
    return logger


def test_a_logger_opened_again_goes_on_where_the_backend_was(tmp_path):
    path, log = tmp_path / "metrics.jsonl", tmp_path / "backend"
    for k in range(3):
        write(path, range(10 * k, 10 * k + 10), FileBackend(log))
    assert taken(log) == list(range(30))


def test_records_that_were_not_delivered_before_a_crash_are_delivered_first(tmp_path):
    path, log = tmp_path / "metrics.jsonl", tmp_path / "backend"
    write(path, range(10), FileBackend(log))
    write(path, range(10, 20))  # as if the backend's process had died meanwhile
    write(path, range(20, 30), FileBackend(log))
    assert taken(log) == list(range(30))


def test_a_backend_that_is_new_to_a_file_begins_at_its_end(tmp_path):
    path, log = tmp_path / "metrics.jsonl", tmp_path / "backend"
    write(path, range(10))
    write(path, range(10, 20), FileBackend(log))
    assert taken(log) == list(range(10, 20))


@pytest.mark.parametrize("kind", [FileBackend, Unflushed])
def test_a_saved_position_is_never_past_what_the_backend_has_let_go(tmp_path, kind, run_python):
    path, log = tmp_path / "metrics.jsonl", tmp_path / "backend"
    script = f"""
import os, sys, time
sys.path[:] = {sys.path!r}
from recorders import {kind.__name__} as Kind
from vibe_rl.metrics import MetricsLogger
from vibe_rl.metrics.feed import feed
feed._SAVE_S = 0.5  # in place of 2 s
logger = MetricsLogger({str(path)!r}, backends=[Kind({str(log)!r}, holds=True)])
saved = i = 0
while saved == 0 or i < 300:
    logger.write({{"i": i}})
    i += 1
    time.sleep(0.01)
    saved = logger._feeds._feeds[0].saved.ordinal
os._exit(9)
"""
    status, _, err = run_python(script)
    assert status == 9, err
    saved = json.loads(next(tmp_path.glob("*.cursor.json")).read_bytes())["ordinal"]
    assert len(taken(log)) >= saved > 0
    write(path, range(1_000_000, 1_000_010), kind(log))
    numbers = [record["i"] for record in read_metrics(path)]
    assert is_complete(taken(log), numbers, repeats=len(numbers) - 10 - saved)


def test_a_backend_without_flush_is_taken_to_hold_back_the_last_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr("vibe_rl.metrics.feed.feed._SAVE_S", 0.3)
    logged, saved = [], []

    class Unflushing(Unflushed):
        def log(self, record, step=None):
            logged.append(time.monotonic())

    def save(self, position, file_id):
        saved.append((time.monotonic(), position.ordinal))

    monkeypatch.setattr(Cursor, "save", save)
    with MetricsLogger(tmp_path / "metrics.jsonl", [Unflushing(tmp_path / "a")]) as logger:
        while sum(ordinal > 0 for _, ordinal in saved) < 3:
            logger.write({"i": 0})
            time.sleep(0.005)
    *running, (_, last) = [each for each in saved if each[1]]
    assert all(now - logged[ordinal - 1] >= 0.3 for now, ordinal in running)
    assert last == len(logged)


def test_a_second_feed_of_the_same_identity_is_refused_and_the_logger_goes_on(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    first = FileBackend(tmp_path / "a", identity="same")
    second = FileBackend(tmp_path / "b", identity="same")
    logger = write(path, range(100), first, second)
    assert "FileBackend 2 is refused" in caplog.text
    assert taken(first.path) == list(range(100))
    assert taken(second.path) == []
    assert (tmp_path / "b.closed").exists()
    assert logger.stats.backends["FileBackend 2"].logged == 0


def test_a_refused_feed_does_not_claim_to_have_delivered(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLogger(path, backends=[FileBackend(tmp_path / "a", identity="same")]) as first:
        second = MetricsLogger(path, backends=[FileBackend(tmp_path / "b", identity="same")])
        second.write({"i": 0})
        assert second.flush() is False
        assert second.close() is False
        # The feed that has the cursor delivers it, though its own logger wrote nothing.
        while first.stats.backends["FileBackend"].logged < 1:
            time.sleep(0.01)
    assert taken(tmp_path / "a") == [0]


def test_a_logger_that_cannot_start_leaves_no_cursor_in_use(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    with MetricsLogger(path, backends=[used := isolated(FileBackend, tmp_path / "x")]):
        pass
    same = FileBackend(tmp_path / "a", identity="same")
    with pytest.raises(ValueError, match="serves one logger"):
        MetricsLogger(path, backends=[same, used])
    with pytest.raises(ValueError, match="stands twice"):
        MetricsLogger(path, backends=[same, same])
    logger = write(path, range(3), same)
    assert logger.stats.backends["FileBackend"].logged == 3


def test_a_refused_feed_takes_over_when_the_other_ends(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = MetricsLogger(path, backends=[FileBackend(tmp_path / "a", identity="same")])
    second = MetricsLogger(path, backends=[FileBackend(tmp_path / "b", identity="same")])
    first.write({"i": 0})
    first.close()
    second.write({"i": 1})
    while second.stats.backends["FileBackend"].logged < 1:
        second.flush()
    second.close()
    assert taken(tmp_path / "a") == [0]
    assert taken(tmp_path / "b") == [1]


def test_without_a_place_for_the_cursor_records_are_delivered_all_the_same(
    tmp_path, monkeypatch, caplog
):
    def refuse(*args):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("vibe_rl.metrics.feed.feed.Cursor", refuse)
    write(tmp_path / "metrics.jsonl", range(10), FileBackend(tmp_path / "a"))
    assert taken(tmp_path / "a") == list(range(10))
    assert "Read-only" in caplog.text


def test_a_file_that_is_emptied_while_it_is_followed_is_read_from_its_start(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    with MetricsLogger(path, backends=[FileBackend(tmp_path / "a")]) as logger:
        for i in range(10):
            logger.write({"i": i})
        logger.flush()
        path.write_bytes(b"")
        logger.write({"i": 10})
        logger.write({"i": 11})
    assert taken(tmp_path / "a") == list(range(12))
    assert "written anew" in caplog.text


def test_a_file_that_is_cut_while_it_is_followed_repeats_nothing(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    with MetricsLogger(path, backends=[FileBackend(tmp_path / "a")]) as logger:
        for i in range(10):
            logger.write({"i": i})
        logger.flush()
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:5]))
        logger.flush()
        logger.write({"i": 10})
    assert taken(tmp_path / "a") == list(range(11))
    assert "cut short" in caplog.text


def test_from_start_passes_over_the_cursor(path, tmp_path):
    save(path, 4, identity="same")
    backend = FileBackend(tmp_path / "a", identity="same")
    feed = Feed(backend, path, START, name="a", from_start=True)
    assert feed.wait(feed.ask(close=True), None)
    assert taken(tmp_path / "a") == list(range(10))

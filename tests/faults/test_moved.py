"""The file is deleted, rotated, replaced or cut while it is written: logger and backends go on."""

import json
import os
import shutil
import subprocess
import sys
import threading
import warnings

import pytest
from recorders import FileBackend, taken
from service_files import tensorboard_scalars

from vibe_rl.metrics import MetricsLogger, isolated, read_metrics
from vibe_rl.metrics.append import read_writers
from vibe_rl.metrics.feed.feed import Feed

BATCH = 300


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "metrics.jsonl"


class Recorder:
    def __init__(self):
        self.taken = []

    def log(self, record, step=None):
        self.taken.append(record["i"])

    def close(self): ...


def write(logger, count=BATCH, *, backends=True):
    first = logger.stats.written
    for i in range(first, first + count):
        logger.write({"i": i})
    logger.flush(backends=backends)


def numbers(path):
    return [record["i"] for record in read_metrics(path, strict=True)]


def synced(path, log_dir):
    """What `vibe-rl sync` delivers of a file."""
    sync = [sys.executable, "-m", "vibe_rl.cli", "sync", path, "--to", "tensorboard"]
    subprocess.run([*sync, "--option", f"log_dir={log_dir}"], check=True)
    return [value for _, _, value in tensorboard_scalars(log_dir)["i"]]


def delete(path):
    path.unlink()


def delete_directory(path):
    shutil.rmtree(path.parent)


def rotate(path):
    path.rename(path.with_name("metrics.1.jsonl"))


def rotate_and_make(path):
    rotate(path)
    path.touch()


def empty(path):
    os.truncate(path, 0)


@pytest.mark.parametrize("fault", [delete, delete_directory, rotate, rotate_and_make, empty])
def test_what_is_written_from_then_on_is_in_a_file_of_that_name(fault, path, caplog):
    backend = Recorder()
    with MetricsLogger(path, [backend]) as logger:
        write(logger)
        for turn in (1, 2):
            fault(path)
            write(logger)
            assert numbers(path) == list(range(turn * BATCH, (turn + 1) * BATCH))
    assert backend.taken == list(range(3 * BATCH))
    assert "going on" in caplog.text


def test_a_backend_that_lags_gets_the_rest_of_a_file_that_was_rotated(path):
    backend = Recorder()
    with MetricsLogger(path, [backend]) as logger:
        feed = logger._feeds._feeds[0]
        feed._catch_up = lambda: True
        for move in (rotate, lambda path: None):
            for i in range(logger.stats.written, logger.stats.written + BATCH):
                logger.write({"i": i})
            logger._writer.flush()
            move(path)
        del feed._catch_up
    assert backend.taken == list(range(2 * BATCH))


def test_a_backend_that_lags_misses_the_file_between_two_rotations(path, tmp_path, monkeypatch):
    """`vibe-rl sync` delivers that."""
    between = path.with_name("metrics.2.jsonl")
    backend = Recorder()
    with monkeypatch.context() as lagging:
        lagging.setattr(Feed, "_catch_up", lambda _: True)
        logger = MetricsLogger(path, [backend])
        for move in (rotate, lambda path: path.rename(between), lambda path: None):
            for i in range(logger.stats.written, logger.stats.written + BATCH):
                logger.write({"i": i})
            logger._writer.flush()
            move(path)
    logger.close()
    assert backend.taken == [*range(BATCH), *range(2 * BATCH, 3 * BATCH)]
    assert synced(between, tmp_path / "synced") == list(range(BATCH, 2 * BATCH))


@pytest.mark.parametrize("count", [100, 10_000], ids=["less than it has read", "more than that"])
def test_a_backend_that_lags_misses_what_was_emptied_and_repeats_nothing(count, path, tmp_path):
    """As by logrotate's `copytruncate`; `vibe-rl sync` of the copy delivers what it missed."""

    class Lagging(Recorder):
        def log(self, record, step=None):
            if record["i"] == 5_000:
                lags.set()
                go_on.wait()
            super().log(record, step)

    lags, go_on = threading.Event(), threading.Event()
    backend = Lagging()
    with MetricsLogger(path, [backend]) as logger:
        feed = logger._feeds._feeds[0]
        feed._catch_up = lambda: True  # so that it has all of this before it, and not only a part
        write(logger, 10_000, backends=False)
        del feed._catch_up
        feed.wake()
        lags.wait()
        copy = shutil.copy(path, path.with_name("metrics.jsonl.1"))
        empty(path)
        write(logger, count, backends=False)
        go_on.set()
    read = backend.taken.index(10_000)
    assert 5_000 < read < 10_000
    assert backend.taken == [*range(read), *range(10_000, 10_000 + count)]
    assert synced(copy, tmp_path / "synced") == list(range(10_000))


def test_a_slow_backend_gets_what_comes_while_it_is_at_work_before_the_file_is_rotated(path):
    class Slow(Recorder):
        def log(self, record, step=None):
            at_work.set()
            go_on.wait()
            super().log(record)

    at_work, go_on = threading.Event(), threading.Event()
    backend = Slow()
    with MetricsLogger(path, [backend]) as logger:
        for move in (lambda path: None, rotate, lambda path: None):
            logger.write({"i": logger.stats.written})
            logger._writer.flush()
            at_work.wait()  # on the first one, having seen no other
            move(path)
        go_on.set()
    assert backend.taken == [0, 1, 2]


@pytest.mark.parametrize("edit", ["the first lines taken out", "nothing changed"])
def test_an_edited_copy_that_takes_the_place_is_not_delivered_again(edit, path, tmp_path):
    backends = [Recorder(), isolated(FileBackend, tmp_path / "log")]
    with MetricsLogger(path, backends) as logger:
        write(logger)
        lines = path.read_bytes().splitlines(keepends=True)
        copy = path.with_name("copy")
        copy.write_bytes(b"".join(lines[10 if "first" in edit else 0 :]))
        copy.replace(path)
        write(logger)
    assert backends[0].taken == list(range(2 * BATCH))
    assert taken(tmp_path / "log") == list(range(2 * BATCH))
    assert numbers(path) == list(range(10 if "first" in edit else 0, 2 * BATCH))


def test_a_file_cut_in_the_middle_of_a_line_loses_what_was_cut_and_no_more(path, caplog):
    backend = Recorder()
    with MetricsLogger(path, [backend]) as logger:
        write(logger)
        content = path.read_bytes()
        os.truncate(path, content.index(b"\n", len(content) // 2) + len('\n{"i'))
        write(logger)
    with warnings.catch_warnings(record=True) as corrupt:
        warnings.simplefilter("always")
        kept = [record["i"] for record in read_metrics(path)]
    assert len(corrupt) == 1
    half = kept.index(BATCH)
    assert kept == [*range(half), *range(BATCH, 2 * BATCH)]
    assert half >= BATCH // 2 - 1
    assert backend.taken[:BATCH] == list(range(BATCH))
    assert "cut short" in caplog.text


def test_the_notes_say_where_the_records_of_the_new_file_begin(path):
    with MetricsLogger(path) as logger:
        write(logger)
        delete(path)
        write(logger)
        opened = [note for note in read_writers(path) if note["event"] == "open"]
    assert [(note["byte"], note["ordinal"]) for note in opened] == [(0, 0), (0, 0)]
    assert opened[0]["time"] == opened[1]["time"]  # from which `wall_time` counts
    assert opened[0]["id"] == opened[1]["id"]


def test_a_directory_that_may_not_be_made_again_is_an_error_until_it_may(path, caplog):
    """In its place stands a file; taking rights away would not stop a user who is root."""
    with MetricsLogger(path) as logger:
        write(logger)
        shutil.rmtree(path.parent)
        path.parent.touch()
        logger.write({"i": BATCH})
        with pytest.raises(OSError, match="1 records have not landed"):
            logger.flush()
        assert "can't append to the metrics file" in caplog.text
        path.parent.unlink()
        assert logger.flush()
        assert numbers(path) == [BATCH]


def test_a_backend_goes_on_after_a_restart_though_its_cursor_was_deleted(path):
    with MetricsLogger(path, [Recorder()]) as logger:
        write(logger)
        delete_directory(path)
        write(logger)
    (cursor,) = path.parent.glob("*.cursor.json")
    assert json.loads(cursor.read_bytes())["ordinal"] == BATCH


def test_a_program_may_change_its_directory(path, monkeypatch, tmp_path):
    path.parent.mkdir()
    monkeypatch.chdir(path.parent)
    with MetricsLogger(path.name) as logger:
        write(logger)
        monkeypatch.chdir(tmp_path)
        write(logger)
    assert numbers(path) == list(range(2 * BATCH))
    assert len(list(tmp_path.iterdir())) == 1
    assert [note["event"] for note in read_writers(path)] == ["open", "close"]

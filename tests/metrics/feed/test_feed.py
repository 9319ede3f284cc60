"""Feeds: what a backend gets, how a feed ends, and how little of the loop's time it takes."""

import _thread
import contextlib
import math
import os
import signal
import sys
import threading
import time
import types

import orjson
import pytest
from feeding import Backend, impatient, write
from recorders import FileBackend, taken

from vibe_rl.metrics import MetricsLogger
from vibe_rl.metrics.append import read_writers
from vibe_rl.metrics.feed import feed
from vibe_rl.metrics.feed.feed import Feed
from vibe_rl.metrics.lines import Position

# -- what a backend gets --------------------------------------------------------------------------


def test_records_come_as_plain_values_with_their_step(path):
    backend = Backend()
    with MetricsLogger(path, [backend]) as logger:
        for step in (7, 8.0, 8.5, True, "9", None):
            logger.write({"step": step, "wall_time": 0.5})
        logger.write({"loss": math.nan, "wall_time": 1})
        logger.write({"a": {"b": [1, -math.inf]}})
    assert backend.steps == [7, 8, None, None, None, None, None, None]
    assert math.isnan(backend.records[6]["loss"])
    assert backend.records[7]["a"] == {"b": [1, -math.inf]}
    assert backend.closed == 1


def test_log_at_gets_the_time_of_writing_and_the_number_of_the_line(path):
    class Timed(Backend):
        def log(self, record, step=None):
            raise AssertionError

        def log_at(self, record, step, *, time, ordinal):
            got.append((step, time, ordinal))

    got = []
    for k in range(2):
        with MetricsLogger(path, [Timed()]) as logger:
            logger.write({"step": k, "wall_time": 1.5})
            logger.write({"step": k, "wall_time": "a user's own"})
    starts = [note["time"] for note in read_writers(path) if note["event"] == "open"]
    assert got == [
        (0, starts[0] + 1.5, 0),
        (0, starts[0], 1),
        (1, starts[1] + 1.5, 2),
        (1, starts[1], 3),
    ]


def times_of(path, *wall_times, openings=()):
    """When records of a file were written, which had a `wall_time` and no logger but these."""

    class Timed(Backend):
        def log_at(self, record, step, *, time, ordinal):
            times.append(time)

    times = []
    path.write_bytes(b"".join(orjson.dumps({"wall_time": each}) + b"\n" for each in wall_times))
    notes = [
        {"event": "open", "pid": 1, "byte": byte, "ordinal": 0, "time": start}
        for byte, start in openings
    ]
    if notes:
        path.with_suffix(".writers.jsonl").write_bytes(b"\n".join(map(orjson.dumps, notes)))
    os.utime(path, (0, CHANGED))
    fed = Feed(Timed(), path, Position(0, 0), name="Timed")
    assert fed.wait(fed.ask(close=True), None)
    return times


CHANGED = 1_700_000_000.0


def test_no_record_is_from_a_time_after_the_file_s_last_change(path):
    # The first logger goes on after the second one has opened the file a day later.
    openings = [(0, CHANGED - 86_400), (18, CHANGED - 10)]
    times = times_of(path, 0.5, 86_399, 9, 86_400, openings=openings)
    assert times == [CHANGED - 86_399.5, CHANGED, CHANGED - 1, CHANGED]


def test_a_user_s_own_wall_time_may_be_one_since_the_epoch(path):
    openings = [(0, CHANGED - 100)]
    assert times_of(path, CHANGED - 50, 10, 1000 * CHANGED, openings=openings) == [
        CHANGED - 50,
        CHANGED - 90,
        CHANGED,
    ]


def test_without_its_writers_notes_a_file_ends_when_it_was_changed_last(path):
    assert times_of(path, 0, 30, "a user's own", 100) == [
        CHANGED - 100,
        CHANGED - 70,
        CHANGED - 100,
        CHANGED,
    ]


def test_flush_flushes_backends_that_can(path):
    backend = Backend()
    with MetricsLogger(path, [backend, FileBackend(path.with_suffix(".txt"))]) as logger:
        logger.write({"i": 0})
        assert logger.flush()
        assert (backend.numbers, backend.flushed) == ([0], 1)


def test_lines_that_are_no_records_are_passed_over(path, caplog):
    backend = Backend()
    with MetricsLogger(path, [backend]) as logger:
        logger.write({"i": 0})
        logger.flush()
        with path.open("ab") as file:
            # The two torn lines would make one record together.
            file.write(b'\n{rubbish\n[1]\n{"i": 7\n"j": 8}\n')
        logger.write({"i": 1})
    assert backend.numbers == [0, 1]
    assert caplog.text.count("no record") == 4


def test_a_line_of_many_blocks_comes_whole(path):
    backend = Backend()
    with MetricsLogger(path, [backend]) as logger:
        for i in range(3):
            logger.write({"i": i, "text": "x" * 300_000})
    assert [len(record["text"]) for record in backend.records] == [300_000] * 3


# -- the way out ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("hurry")
def test_close_waits_for_a_slow_backend_as_long_as_it_makes_progress(path):
    class Slow(Backend):
        def log(self, record, step=None):
            time.sleep(0.2)
            super().log(record, step)

    backend = Slow()
    with impatient(2.0):
        write(path, 12, backend)  # takes longer than that
    assert backend.numbers == list(range(12))


def test_close_with_a_timeout_ends_a_backend_and_says_how_far_behind_it_is(path, caplog):
    class Slow(Backend):
        def log(self, record, step=None):
            super().log(record, step)
            went_in.set()
            go_on.wait()

        def close(self):
            super().close()
            closed.set()

    went_in, go_on, closed = threading.Event(), threading.Event(), threading.Event()
    backend = Slow()
    backend.identity = "the same"
    logger = MetricsLogger(path, [backend])
    for i in range(50):
        logger.write({"i": i})
    went_in.wait()
    logger.flush(backends=False)
    assert logger.close(timeout=0.1) is False
    assert f"Slow did not take the last 50 records ({path.stat().st_size} bytes)" in caplog.text
    assert "vibe-rl sync" in caplog.text
    go_on.set()
    assert closed.wait(10)
    assert backend.numbers == [0]
    # The next one goes on there.
    again = Backend()
    again.identity = backend.identity
    with MetricsLogger(path, [again]) as logger:
        while logger.stats.backends["Backend"].logged < 49:
            time.sleep(0.01)
    assert again.numbers == list(range(1, 50))


@pytest.mark.usefixtures("hurry")
def test_close_waits_for_several_backends_that_hang_no_longer_than_for_one(path, caplog):
    released = threading.Event()
    stuck = [threading.Event() for _ in range(20)]
    hanging = [Backend(lambda record, n, own=own: own.set() or released.wait()) for own in stuck]
    logger = MetricsLogger(path, hanging)
    logger.write({"i": 0})
    for own in stuck:
        own.wait()
    began = time.monotonic()
    with impatient(0.6):
        assert logger.close() is False
    # One after the other, they would take twenty times that at the least.
    assert time.monotonic() - began < 16 * 0.6
    assert caplog.text.count("did not take the last 1 records") == 20
    released.set()


def test_ctrl_c_ends_the_wait_for_a_backend(python):
    process = python(
        """
import sys
sys.path[:] = sys.argv[1:]
from recorders import Hanging, FileBackend
from vibe_rl.metrics import MetricsLogger
logger = MetricsLogger("metrics.jsonl", backends=[Hanging("a"), FileBackend("b")])
logger.write({"i": 0})
deliver = logger._feeds.deliver
logger._feeds.deliver = lambda *args, **how: print("waiting", flush=True) or deliver(*args, **how)
logger.close()
""",
        *sys.path,
    )
    assert process.stdout.readline() == "waiting\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in err
    assert "Hanging did not take the last 1 records" in err
    assert process.returncode != 0


# -- beside a training loop -----------------------------------------------------------------------


@pytest.fixture
def pauses(monkeypatch):
    """Count the feeds' pauses."""
    counted = []

    def sleep(seconds):
        counted.append(seconds)
        time.sleep(seconds)

    clock = types.SimpleNamespace(monotonic=time.monotonic, sleep=sleep)
    monkeypatch.setattr(feed, "time", clock)
    return counted


def test_a_feed_pauses_while_it_drains_a_backlog(path, pauses):
    write(path, 2_000)
    backend = Backend(lambda record, n: time.sleep(20e-6))
    drained = Feed(backend, path, Position(0, 0), name="Backend")
    while drained.stats.behind:
        time.sleep(0.01)
    assert len(pauses) > 100
    assert min(pauses) >= 1e-3
    drained.wait(drained.ask(close=True), None)


def test_a_feed_does_not_pause_while_somebody_waits(path, pauses):
    write(path, 2_000)
    drained = Feed(Backend(), path, Position(0, 0), name="Backend")
    ticket = drained.ask(close=True)
    before = len(pauses)
    assert drained.wait(ticket, None)
    assert len(pauses) <= before + 1


# -- forked children ------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*fork.*:RuntimeWarning")
def test_a_forked_child_that_lives_on_does_not_keep_the_cursor(path, tmp_path):
    logger = MetricsLogger(path, [FileBackend(tmp_path / "a")])
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    try:
        logger.write({"i": 0})
        logger.close()
        with MetricsLogger(path, [FileBackend(tmp_path / "a")]) as again:
            again.write({"i": 1})
        assert taken(tmp_path / "a") == [0, 1]
        assert again.stats.backends["FileBackend"].logged == 1
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_flush_that_is_interrupted_leaves_no_feed_in_a_hurry(tmp_path):
    class Interrupted(FileBackend):
        def flush(self):
            _thread.interrupt_main()
            time.sleep(0.2)

    first, second = Interrupted(tmp_path / "a"), FileBackend(tmp_path / "b")
    logger = MetricsLogger(tmp_path / "metrics.jsonl", [first, second])
    logger.write({"i": 0})
    with pytest.raises(KeyboardInterrupt):
        logger.flush()
    assert [feed._waiters for feed in logger._feeds._feeds] == [0, 0]
    first.flush = None
    with contextlib.suppress(KeyboardInterrupt):  # of its save at the end
        logger.close()

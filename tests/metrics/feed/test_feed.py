"""Feeds: every record reaches every backend, in order, and a bad backend harms nobody else."""

import _thread
import contextlib
import errno
import math
import os
import re
import signal
import sys
import threading
import time
import tracemalloc
import types

import orjson
import pytest
from recorders import FileBackend, Raising, taken

from vibe_rl.metrics import MetricsLogger, isolated, lines, read_metrics
from vibe_rl.metrics.append import read_writers
from vibe_rl.metrics.feed import feed, tickets
from vibe_rl.metrics.feed.feed import Feed
from vibe_rl.metrics.lines import Position


class Backend:
    """Keeps what it gets; `fails(record, n)` says whether call `n`, from 0, raises."""

    def __init__(self, fails=lambda record, n: False, error=RuntimeError):
        self.records = []
        self.steps = []
        self.calls = self.closed = self.flushed = 0
        self._fails = fails
        self._error = error

    def log(self, record, step=None):
        n, self.calls = self.calls, self.calls + 1
        if self._fails(record, n):
            raise self._error(f"call {n}")
        self.records.append(record)
        self.steps.append(step)

    def flush(self):
        self.flushed += 1

    def close(self):
        self.closed += 1

    @property
    def numbers(self):
        return [record["i"] for record in self.records]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


@pytest.fixture
def hurry(monkeypatch):
    """Make seconds hundredths, where a feed waits."""
    monkeypatch.setattr("vibe_rl.metrics.feed.delivery._RETRY_S", (1e-5, 1e-4, 1e-3))
    monkeypatch.setattr("vibe_rl.metrics.feed.delivery._DOWN_S", (0.01, 0.05))


@contextlib.contextmanager
def impatient(seconds):
    """Have flush() and close() give a backend up so soon; for only as long as they are to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tickets, "PATIENCE_S", seconds)
        yield


def write(path, n, *backends, **options):
    with MetricsLogger(path, backends=backends, **options) as logger:
        for i in range(n):
            logger.write({"i": i})
    return logger


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


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("hurry")
def test_an_error_that_passes_costs_nothing(path):
    backend = Backend(lambda record, n: n in (5, 6))
    logger = write(path, 20, backend)
    assert backend.numbers == list(range(20))
    assert logger.stats.backends["Backend"].failed == 0


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize("bad", [{0}, {7}, {7, 8}, {3, 5, 7}])
def test_a_record_at_fault_is_passed_over_and_counted(path, bad):
    backend = Backend(lambda record, n: record["i"] in bad)
    logger = write(path, 20, backend)
    rest = [i for i in range(20) if i not in bad]
    assert sorted(set(backend.numbers)) == rest
    assert logger.stats.backends["Backend"].failed == len(bad)
    assert logger.stats.backends["Backend"].logged == len(rest)
    if len(bad) == 1:
        assert backend.numbers == rest  # and nothing twice


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize("bad", [{19}, {18, 19}])
def test_a_record_at_fault_may_be_the_last_once_somebody_waits(path, bad):
    backend = Backend(lambda record, n: record["i"] in bad)
    logger = MetricsLogger(path, [backend])
    for i in range(20):
        logger.write({"i": i})
    assert (logger.flush(), logger.close()) == (True, True)
    assert logger.stats.backends["Backend"].failed == len(bad)
    assert sorted(set(backend.numbers)) == [i for i in range(20) if i not in bad]


@pytest.mark.usefixtures("hurry")
def test_the_last_record_waits_while_the_backend_takes_no_other(path):
    up, down = threading.Event(), threading.Event()
    backend = Backend(lambda record, n: down.is_set() or (record["i"] == 9 and not up.is_set()))
    with MetricsLogger(path, [backend]) as logger:
        for i in range(9):
            logger.write({"i": i})
        assert logger.flush()
        down.set()
        logger.write({"i": 9})
        with impatient(0.6):
            assert logger.flush() is False
        up.set()
        down.clear()
    assert set(backend.numbers) == set(range(10))
    assert logger.stats.backends["Backend"].failed == 0


@pytest.mark.usefixtures("hurry")
def test_a_backend_that_is_back_gets_all_that_waited(path, caplog):
    backend = Backend(lambda record, n: 5 <= n < 60)
    with MetricsLogger(path, [backend]) as logger:
        for i in range(30):
            logger.write({"i": i})
        while logger.stats.backends["Backend"].logged < 30:
            time.sleep(0.01)
    assert backend.numbers == list(range(30))
    assert logger.stats.backends["Backend"].failed == 0
    assert caplog.text.count("Backend is down") == caplog.text.count("Backend is back") == 1


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize("back", range(1, 14))
def test_a_backend_that_is_back_at_any_moment_loses_no_record(path, back):
    """Even between the last try of a record and the first try of its neighbour."""
    backend = Backend(lambda record, n: 5 <= n < 5 + back)
    logger = write(path, 10, backend)
    in_turn = iter(backend.numbers)
    assert all(i in in_turn for i in range(10))  # each, in order; some perhaps twice
    assert logger.stats.backends["Backend"].failed == 0


@pytest.mark.usefixtures("hurry")
def test_a_record_is_whole_again_when_it_is_tried_again(path):
    class Greedy(Backend):
        def log(self, record, step=None):
            i = record.pop("i")
            super().log({"i": i}, step)

    backend = Greedy(lambda record, n: n in (3, 4, 5, 6, 7))
    write(path, 10, backend)
    assert set(backend.numbers) == set(range(10))


@pytest.mark.usefixtures("hurry")
def test_each_kind_of_error_is_logged_once_and_summed_up_at_the_end(path, caplog):
    class Fickle(Backend):
        def log(self, record, step=None):
            super().log(record, step)
            if record["i"] in (4, 8, 12):
                raise (KeyError if record["i"] == 12 else ValueError)(record["i"])

    with MetricsLogger(path, [Fickle()]) as logger:
        for i in range(20):
            logger.write({"i": i, "step": 100 * i})
    traces = [(log.exc_info[0], log.message) for log in caplog.records if log.exc_info]
    assert [kind for kind, _ in traces] == [ValueError, KeyError]
    assert "Fickle" in traces[0][1]
    assert "step 400" in traces[0][1]
    assert "3 records failed" in caplog.records[-1].message
    assert "KeyError" in caplog.records[-1].message


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_whatever_a_backend_raises_is_an_error_like_others(path, error):
    backend = Backend(lambda record, n: n == 3, error)
    write(path, 10, backend)
    assert backend.numbers == list(range(10))


@pytest.mark.usefixtures("hurry")
def test_flush_on_a_backend_that_is_down_tries_it_and_says_so(path, monkeypatch):
    monkeypatch.setattr("vibe_rl.metrics.feed.delivery._DOWN_S", (600, 600))
    up = threading.Event()
    backend = Backend(lambda record, n: not up.is_set())
    with MetricsLogger(path, [backend]) as logger:
        for i in range(10):
            logger.write({"i": i})
        assert logger.flush() is False
        assert logger.flush() is False
        up.set()
        assert logger.flush() is True
    assert backend.numbers == list(range(10))


@pytest.mark.usefixtures("hurry")
def test_a_backend_whose_close_raises_has_not_got_everything(path, caplog):
    class Closing(Backend):
        def close(self):
            raise OSError("upload failed")

    logger = MetricsLogger(path, [Closing()])
    logger.write({"i": 0})
    assert logger.close() is False
    # It is not tried again, and no number of records is known to be missing.
    raised, left = (record.message for record in caplog.records)
    assert raised == "Closing raised OSError in close(); the file and other backends go on"
    assert f"Closing took all of {path}, but may not have saved the last of it" in left


def test_what_a_backend_lacks_is_said_without_reading_all_of_much(path, caplog, monkeypatch):
    monkeypatch.setattr("vibe_rl.metrics.feed.feeds._COUNTED_BYTES", 1_000)
    released = threading.Event()
    logger = MetricsLogger(path, [Backend(lambda record, n: released.wait())])
    for _ in range(100):
        logger.write({"text": "x" * 80, "wall_time": 0})
    logger.close(timeout=0.2)
    released.set()
    size = path.stat().st_size
    about = 1_000 // (size // 100) * size // 1_000
    assert f"did not take the last about {about} records ({size} bytes)" in caplog.text


def test_what_a_backend_lacks_is_said_where_the_file_cannot_be_opened(path, caplog, monkeypatch):
    def no_descriptor(*args, **kwargs):
        raise OSError(errno.EMFILE, "Too many open files")

    released = threading.Event()
    logger = MetricsLogger(path, [Backend(lambda record, n: released.wait())])
    logger.write({"i": 0})
    logger.flush(backends=False)
    monkeypatch.setattr(type(path), "open", no_descriptor)
    logger.close(timeout=0)
    released.set()
    assert f"did not take the last {path.stat().st_size} bytes of" in caplog.text


# -- what is no backend's fault, or an odd one's --------------------------------------------------


class Trouble:
    """Stands in for a module: a function of it raises an error, as often as `left` says."""

    def __init__(self, module, function, error):
        self._module = module
        self._function = function
        self._error = error
        self.left = 0

    def __getattr__(self, name):
        if name == self._function and self.left:
            self.left -= 1
            raise self._error
        return getattr(self._module, name)


@pytest.mark.usefixtures("hurry")
def test_a_file_that_cannot_be_read_for_a_while_is_read_on(path, caplog, monkeypatch):
    monkeypatch.setattr(feed, "_LOOK_S", 0.01)
    trouble = Trouble(os, "pread", OSError(errno.ESTALE, "Stale file handle"))
    monkeypatch.setattr("vibe_rl.metrics.lines.os", trouble)
    backend = Backend()
    with MetricsLogger(path, [backend]) as logger:
        logger.write({"i": 0})
        logger.flush()
        trouble.left = 5
        logger.write({"i": 1})
        while trouble.left:
            time.sleep(0.01)
        logger.write({"i": 2})
        assert logger.flush()
    assert backend.numbers == [0, 1, 2]
    assert backend.closed == 1
    assert caplog.text.count("Stale file handle") == 1


@pytest.mark.usefixtures("hurry")
def test_a_file_that_can_never_be_read_again_ends_with_a_closed_backend(path, monkeypatch):
    monkeypatch.setattr(feed, "_LOOK_S", 0.01)
    trouble = Trouble(os, "pread", OSError(errno.EIO, "Input/output error"))
    backend = Backend()
    logger = MetricsLogger(path, [backend])
    logger.write({"i": 0})
    logger.flush()
    monkeypatch.setattr("vibe_rl.metrics.lines.os", trouble)
    trouble.left = math.inf
    logger.write({"i": 1})
    with impatient(1.5):
        assert logger.flush() is False
        assert logger.close() is False
    assert (backend.numbers, backend.closed) == ([0], 1)


def test_notes_of_writers_that_cannot_be_read_for_a_while_are_read_later(path, monkeypatch):
    class Timed(Backend):
        def log_at(self, record, step, *, time, ordinal):
            times.append(time)

    times = []
    MetricsLogger(path).close()
    real, failures = lines.iter_writers, iter([True] * 2)

    def iter_writers(path):
        if next(failures, False):
            raise OSError(errno.EMFILE, "Too many open files")
        return real(path)

    monkeypatch.setattr(feed, "_LOOK_S", 0.01)
    with MetricsLogger(path, [Timed()]) as logger:
        logger.flush()
        monkeypatch.setattr(lines, "iter_writers", iter_writers)
        with MetricsLogger(path) as other:  # whose note is to be read
            other.write({"wall_time": 0.5})
        logger.flush()
        assert next(failures, None) is None
    starts = [note["time"] for note in read_writers(path) if note["event"] == "open"]
    assert times == [starts[-1] + 0.5]


def test_a_feed_that_fails_closes_its_backend_and_keeps_nobody_waiting(path, caplog, monkeypatch):
    backend = Backend()
    logger = MetricsLogger(path, [backend])
    logger.write({"i": 0})
    logger.flush()
    monkeypatch.setattr(Feed, "_look_at_file", lambda self: 1 // 0)
    logger.write({"i": 1})
    assert logger.flush() is False
    assert logger.close() is False
    assert (backend.numbers, backend.closed) == ([0], 1)
    assert "Backend gets no more records: its feed has failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("value", [True, "text", None, 3])
def test_what_is_no_method_is_not_called(path, value):
    backend = Backend()
    backend.flush = backend.restart = backend.log_at = value
    for resume_step in (None, 2):
        with MetricsLogger(path, [backend], resume_step=resume_step) as logger:
            for i in range(5):
                logger.write({"i": i, "step": i})
    assert backend.numbers == [*range(5), *range(5)]
    assert logger._outcome is True


def test_an_exit_code_that_can_only_be_read_harms_nothing(path, caplog):
    class Fixed(Backend):
        exit_code = property(lambda self: None)

    backend = Fixed()
    with pytest.raises(ZeroDivisionError), MetricsLogger(path, [backend]) as logger:
        logger.write({"i": 0})
        raise ZeroDivisionError
    assert (backend.numbers, backend.closed, logger._outcome) == ([0], 1, True)
    assert not caplog.records


@pytest.mark.parametrize("attribute", ["name", "identity"])
def test_a_name_that_is_no_text_is_none(path, attribute):
    class Odd(Backend): ...

    Odd.__qualname__ = "Odd"
    setattr(Odd, attribute, lambda self: "a method, whose repr() differs in each process")
    for _ in range(2):
        with MetricsLogger(path, [Odd()]) as logger:
            logger.write({"i": 0})
    assert list(logger.stats.backends) == ["Odd"]
    assert len(list(path.parent.glob("metrics.Odd-*.cursor.json"))) == 1
    assert not list(path.parent.glob("metrics.bound*"))


def test_a_backend_learns_how_the_run_ended(path):
    backend = Backend()
    backend.exit_code = None
    with pytest.raises(ZeroDivisionError), MetricsLogger(path, [backend]):
        raise ZeroDivisionError
    assert backend.exit_code == 1


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


# -- one bad backend beside a good one ------------------------------------------------------------


def bad_backend(kind, released):
    if kind == "slow":
        return Backend(lambda record, n: released.wait(1) and False)
    if kind == "always":
        return SlowToClose(lambda record, n: True)
    if kind == "every third":
        return Backend(lambda record, n: n % 3 == 2)
    return Backend(lambda record, n: released.wait())


class SlowToClose(Backend):
    def close(self):
        time.sleep(0.5)
        super().close()


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize("kind", ["slow", "always", "every third", "hangs"])
def test_a_bad_backend_harms_nobody_else(path, kind, scale, caplog):
    n = scale(3_000, 100_000)
    released = threading.Event()
    bad, good = bad_backend(kind, released), Backend()
    bad.name, good.name = "bad", "good"
    logger = MetricsLogger(path, [bad, good])
    for i in range(n):
        logger.write({"i": i})  # never waits: what hangs is released only at the end
    while logger.stats.backends["good"].logged < n:
        time.sleep(0.01)
    with impatient(30 if kind == "every third" else 1.5):
        delivered = logger.close(timeout=2) if kind == "slow" else logger.close()
    stats = logger.stats.backends
    assert good.numbers == list(range(n))
    assert (stats["good"].logged, stats["good"].behind) == (n, 0)
    assert [record["i"] for record in read_metrics(path)] == list(range(n))
    assert stats["bad"].failed == 0
    if kind == "every third":
        assert delivered
        assert bad.numbers == list(range(n))
    else:
        assert not delivered
        assert bad.closed == (kind == "always")  # the others are in the middle of a call
        left = int(re.search("bad did not take the last ([0-9]+) records", caplog.text)[1])
        assert left - (n - len(bad.numbers)) in (0, 1)  # one may have come through since
        assert stats["bad"].behind > 0
    released.set()


@pytest.mark.usefixtures("hurry")
def test_bad_backends_harm_nobody_else_together_either(path, scale, caplog):
    def hang(record, n):
        hangs.set()
        released.wait()

    n = scale(3_000, 100_000)
    hangs, released = threading.Event(), threading.Event()
    hanging, raising, good = Backend(hang), Backend(lambda record, n: True), Backend()
    hanging.name, raising.name, good.name = "hanging", "raising", "good"
    apart = isolated(Raising, patience=1.0)
    logger = MetricsLogger(path, [hanging, raising, apart, good])
    logger.write({"i": 0})
    hangs.wait()
    for i in range(1, n):
        logger.write({"i": i})
    # All of them have returned, though the one is in its first call, and the others have got over
    # no record.
    assert (hanging.calls, hanging.numbers, raising.numbers, apart.stats.logged) == (1, [], [], 0)
    while logger.stats.backends["good"].logged < n:
        time.sleep(0.01)
    with impatient(1.5):
        assert logger.close() is False
    assert good.numbers == [record["i"] for record in read_metrics(path)] == list(range(n))
    assert (good.closed, raising.closed) == (1, 1)
    for name in ("hanging", "raising", "Raising"):
        stats = logger.stats.backends[name]
        assert (stats.logged, stats.failed, stats.behind) == (0, 0, path.stat().st_size)
        assert f"{name} did not take the last {n} records" in caplog.text
    released.set()


def test_a_backend_that_raises_for_ten_minutes_gets_everything_then(path, scale, monkeypatch):
    n = scale(3_000, 100_000)
    pauses = []

    def pause(self, seconds, pause=Feed._pause):
        pauses.append(seconds)
        return pause(self, seconds / 1_000)  # the clock that the backend looks at is `pauses`

    monkeypatch.setattr(Feed, "_pause", pause)
    bad, good = Backend(lambda record, n: sum(pauses) < 600), Backend()
    bad.name, good.name = "bad", "good"
    with MetricsLogger(path, [bad, good]) as logger:
        for i in range(n):
            logger.write({"i": i})
        while logger.stats.backends["bad"].logged < n:
            time.sleep(0.01)
    assert good.numbers == bad.numbers == list(range(n))
    assert logger.stats.backends["bad"].failed == 0
    assert [seconds for seconds in pauses if seconds >= 1] == [1, 2, 4, 8, 16, *[30] * 19]


def test_memory_does_not_grow_with_the_backlog(path, scale):
    stuck, release = threading.Event(), threading.Event()
    backend = Backend(lambda record, n: stuck.set() or (release.wait() and False))
    logger = MetricsLogger(path, [backend])
    logger.write({"i": 0})
    stuck.wait()
    tracemalloc.start()
    try:
        for i in range(scale(50_000, 1_000_000)):
            logger.write({"i": i, "text": "x" * 100})
        while logger.stats.queued:
            time.sleep(0.01)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < path.stat().st_size / 4
    logger.close(timeout=0)
    release.set()


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

"""Feeds: whatever a backend, the file or a cursor raises, no record is lost that could be had."""

import errno
import math
import os
import threading
import time

import pytest
from feeding import Backend, impatient, write

from vibe_rl.metrics import MetricsLogger, lines
from vibe_rl.metrics.append import read_writers
from vibe_rl.metrics.feed import feed
from vibe_rl.metrics.feed.feed import Feed

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
    logger.flush(backends=False)
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

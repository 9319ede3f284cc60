"""The life of a logger: what `write`, `flush` and `close` promise, whoever calls them, whenever."""

import collections
import copy
import fcntl
import gc
import itertools
import logging
import math
import pickle
import sys
import threading

import jax.numpy as jnp
import pytest

from vibe_rl.metrics import LogBackend, MetricsLogger, read_metrics
from vibe_rl.run_dir import RunDir


class Recorder:
    """A backend that keeps what it gets."""

    def __init__(self):
        self.calls = []
        self.closed = 0

    def log(self, record, step=None):
        self.calls.append((record, step))

    def close(self):
        self.closed += 1


class Uncallable(Recorder):
    """Has no method `log`, but something else of that name."""

    log = 3


@pytest.fixture
def path(tmp_path):
    return tmp_path / "logs" / "metrics.jsonl"


def in_threads(count, work):
    """Run `work(number)` in so many threads at once, and give their results."""
    results = [None] * count

    def run(number):
        results[number] = work(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_each_write_is_a_line_with_its_wall_time(path):
    with MetricsLogger(path) as logger:
        logger.write({"step": 1000, "loss": jnp.array(0.42)})
        logger.write({"loss": 1, "wall_time": 7})
        logger.write({"wall_time": None})
        logger.write({})
    lines = path.read_bytes().splitlines(keepends=True)
    assert lines[0].startswith(b'{"step":1000,"loss":0.42,"wall_time":')
    assert lines[1:3] == [b'{"loss":1,"wall_time":7}\n', b'{"wall_time":null}\n']
    assert list(read_metrics(path)[3]) == ["wall_time"]


def test_the_record_of_the_caller_stays_as_it_is(path):
    record = {"loss": 1}
    with MetricsLogger(path) as logger:
        logger.write(record)
    assert record == {"loss": 1}


def test_wall_time_never_goes_backwards_in_a_thread(path):
    with MetricsLogger(path) as logger:
        in_threads(4, lambda n: [logger.write({"thread": n}) for _ in range(500)])
    times = collections.defaultdict(list)
    for record in read_metrics(path, strict=True):
        times[record["thread"]].append(record["wall_time"])
    for mine in times.values():
        assert mine == sorted(mine)
        assert 0 <= mine[0] < mine[-1]


@pytest.mark.timeout(300)
def test_eight_threads_lose_tear_and_swap_nothing(path, scale):
    each = scale(5_000, 50_000)
    with MetricsLogger(path) as logger:
        in_threads(
            8, lambda n: [logger.write({"thread": n, "i": i, "loss": 0.5}) for i in range(each)]
        )
    assert logger.stats.written == 8 * each
    seen = [0] * 8
    for record in read_metrics(path, strict=True):
        assert record["i"] == seen[record["thread"]]
        seen[record["thread"]] += 1
    assert seen == [each] * 8


@pytest.mark.timeout(300)
@pytest.mark.parametrize("overflow", ["block", "drop_oldest", "drop_newest"])
def test_a_queue_of_64_accounts_for_every_record(path, overflow, scale):
    each = scale(3_000, 50_000)
    with MetricsLogger(path, queue_size=64, overflow=overflow) as logger:
        in_threads(8, lambda n: [logger.write({"thread": n, "i": i}) for i in range(each)])
    records = read_metrics(path, strict=True)
    assert len(records) + logger.stats.dropped == 8 * each
    assert len(records) == logger.stats.written
    if overflow == "block":
        assert logger.stats.dropped == 0
    for n in range(8):
        mine = [record["i"] for record in records if record["thread"] == n]
        assert mine == sorted(set(mine))


@pytest.fixture
def hasty():
    """Have threads take turns a thousand times more often than usual, so that races show."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.timeout(600)
def test_every_write_that_close_overtakes_is_refused_or_lands(tmp_path, scale, hasty):
    for trial in range(scale(40, 2_000)):
        logger = MetricsLogger(tmp_path / f"{trial}.jsonl", queue_size=(4, 64, 65_536)[trial % 3])
        begun = threading.Barrier(5)

        def write(number, logger=logger, begun=begun):
            begun.wait()
            accepted = []
            try:
                for i in itertools.count():
                    logger.write({"thread": number, "i": i})
                    accepted.append(i)
            except ValueError:
                return accepted

        def close(_, logger=logger, begun=begun, trial=trial):
            begun.wait()
            threading.Event().wait(trial % 7 * 1e-3)
            assert logger.close()

        results = in_threads(5, lambda n, w=write, c=close: w(n) if n else c(n))
        landed = [[] for _ in range(5)]
        for record in read_metrics(logger.path, strict=True):
            landed[record["thread"]].append(record["i"])
        assert landed[1:] == results[1:]


def test_write_after_close_is_refused(path):
    logger = MetricsLogger(path)
    logger.close()
    with pytest.raises(ValueError, match=r"metrics\.jsonl is closed"):
        logger.write({"loss": 1})
    assert read_metrics(path) == []


def test_close_is_idempotent_also_from_several_threads(path):
    backend = Recorder()
    logger = MetricsLogger(path, [backend])
    for step in range(1_000):
        logger.write({"step": step})
    assert in_threads(8, lambda _: logger.close()) == [True] * 8
    assert logger.close()
    assert logger.flush()
    assert backend.closed == 1
    assert len(backend.calls) == len(read_metrics(path)) == 1_000


def test_flush_puts_everything_in_the_file_and_in_the_backends(path):
    backend = Recorder()
    with MetricsLogger(path, [backend], flush_interval=3600) as logger:
        for step in range(1_000):
            logger.write({"step": step})
        assert logger.flush()
        assert len(read_metrics(path)) == len(backend.calls) == 1_000
        assert backend.closed == 0


def test_flush_and_close_say_when_time_was_too_short(path, caplog):
    class Slow(Recorder):
        def log(self, record, step=None):
            gate.wait()
            super().log(record, step)

    gate, backend = threading.Event(), Slow()
    logger = MetricsLogger(path, [backend])
    logger.write({"loss": 1})
    assert not logger.flush(timeout=0.2)
    assert logger.flush(backends=False)
    assert not logger.close(timeout=0.2)
    assert "Slow did not take" in caplog.text
    assert len(read_metrics(path)) == 1
    gate.set()


def test_a_later_close_finishes_what_one_had_no_time_for(path, caplog):
    logger, gate = MetricsLogger(path), threading.Event()
    append = logger._file.append

    def stalls(data):
        gate.wait()
        return append(data)

    logger._writer._append = stalls
    logger.write({"loss": 1})
    assert not logger.close(timeout=0.2)
    assert "1 records were not written in time" in caplog.text
    gate.set()
    assert logger.close()
    assert len(read_metrics(path)) == 1
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_backend_gets_every_record_in_order_as_it_reads_back(path):
    backend = Recorder()
    with MetricsLogger(path, [backend]) as logger:
        for step in range(500):
            logger.write(
                {"step": jnp.int32(step), "loss": math.inf, "phase": "a", "eval": {"x": 1}}
            )
        logger.write({"loss": 1})
        logger.write({"step": "late"})
    assert [record for record, _ in backend.calls] == read_metrics(path)
    assert [step for _, step in backend.calls] == [*range(500), None, None]
    assert backend.closed == 1
    assert backend.calls[0][0]["loss"] == math.inf


def test_a_logger_without_lines_of_its_own_gives_a_backend_none(path):
    with MetricsLogger(path) as logger:
        logger.write({"step": 0})
    backend = Recorder()
    MetricsLogger(path, [backend]).close()
    assert (backend.calls, backend.closed) == ([], 1)


def test_a_raising_backend_harms_nobody(path, caplog, monkeypatch):
    # Longer than the patience with it, so that close() gives it up at once.
    monkeypatch.setattr("vibe_rl.metrics.feed.delivery._DOWN_S", (600, 600))

    class Broken(Recorder):
        def log(self, record, step=None):
            raise RuntimeError("the service is down")

        def close(self):
            raise KeyError("no session")

    good = Recorder()
    with MetricsLogger(path, [Broken(), good]) as logger:
        for step in range(200):
            logger.write({"step": step})
    assert len(read_metrics(path)) == len(good.calls) == 200
    # It took none, so nothing says that the records are at fault: they wait in the file.
    assert logger.stats.backends["Broken"].failed == 0
    assert logger.stats.backends["Broken"].behind == path.stat().st_size
    assert logger.stats.backends["Recorder"].logged == 200
    errors = [log.exc_info[0] for log in caplog.records if "Broken" in log.message and log.exc_info]
    assert errors.count(RuntimeError) == 1  # the rest are counted


def test_a_backend_may_write_and_flush_too(path):
    class Echo(Recorder):
        def log(self, record, step=None):
            super().log(record, step)
            if record["echo"] < 50:
                logger.write({"echo": record["echo"] + 1})
                assert not logger.flush()  # it would wait for itself

    backend = Echo()
    with MetricsLogger(path, [backend], queue_size=1) as logger:
        logger.write({"echo": 0})
        while len(backend.calls) < 51:
            threading.Event().wait(0.001)
    assert [record["echo"] for record in read_metrics(path)] == list(range(51))
    assert logger.stats.backends["Echo"].failed == 0


def test_a_backend_that_closes_its_logger_is_told_to_leave_it(path, caplog):
    class Stop(Recorder):
        def log(self, record, step=None):
            super().log(record, step)
            outcomes.append(logger.close())

    backend, outcomes = Stop(), []
    with MetricsLogger(path, [backend]) as logger:
        logger.write({"i": 0})
        assert logger.flush()
        logger.write({"i": 1})
    assert outcomes == [False, False]
    assert (len(backend.calls), backend.closed) == (2, 1)
    assert caplog.text.count("close it on the thread that writes") == 1


def test_a_backend_may_close_a_logger_of_its_own(path, tmp_path):
    class Tee(Recorder):
        def log(self, record, step=None):
            inner.write(record)

        def close(self):
            closed.append(inner.close())

    inner, closed = MetricsLogger(tmp_path / "inner.jsonl", [own := Recorder()]), []
    with MetricsLogger(path, [Tee()]) as logger:
        logger.write({"i": 0})
    assert closed == [True]
    assert len(own.calls) == 1


def test_a_logging_handler_may_write_and_flush_too(path):
    class Handler(logging.Handler):
        def emit(self, record):
            logger.write({"message": record.getMessage()})
            logger.flush()

    log = logging.getLogger("vibe_rl")
    handler = Handler()
    log.addHandler(handler)
    try:
        with MetricsLogger(path, queue_size=2) as logger:
            in_threads(4, lambda n: [logger.write({"i": i}) for i in range(500)])
            append, fail = logger._file.append, iter([True, False])

            def fails_once(data):
                if next(fail, False):
                    raise OSError(28, "No space left on device")
                return append(data)

            logger._writer._append = fails_once
            logger.write({"i": 500})
            while logger.stats.queued:
                threading.Event().wait(0.01)
    finally:
        log.removeHandler(handler)
    messages = [record["message"] for record in read_metrics(path) if "message" in record]
    assert any("No space left" in message for message in messages)
    assert sum("i" in record for record in read_metrics(path)) == 2_001


@pytest.mark.parametrize("overflow", ["block", "drop_oldest"])
def test_an_object_may_write_as_it_dies(overflow, path):
    class Dying:
        def __del__(self):
            logger.write({"dying": True})

    before = gc.get_threshold()
    gc.set_threshold(1)  # at each allocation, also those of write() under its lock
    try:
        with MetricsLogger(path, queue_size=8, overflow=overflow) as logger:
            for i in range(2_000):
                cycle = [Dying()]
                cycle.append(cycle)  # dies whenever the garbage collector runs
                del cycle
                logger.write({"i": i})
            gc.collect()
    finally:
        gc.set_threshold(*before)
    assert len(read_metrics(path, strict=True)) + logger.stats.dropped == 4_000


def test_a_run_dir_is_a_path(tmp_path):
    run = RunDir("ppo", tmp_path)
    with MetricsLogger(run) as logger:
        logger.write({"loss": 1})
    assert logger.path == run.log_path()
    assert len(read_metrics(run)) == 1


def test_the_directories_of_a_path_are_made(path):
    assert not path.parent.exists()
    MetricsLogger(str(path)).close()
    assert path.read_bytes() == b""


def test_an_existing_file_is_appended_to(path):
    for n in range(3):
        with MetricsLogger(path) as logger:
            logger.write({"n": n})
    assert [record["n"] for record in read_metrics(path)] == [0, 1, 2]


def test_two_loggers_may_share_a_file(path):
    with MetricsLogger(path) as one, MetricsLogger(path) as two:
        in_threads(4, lambda n: [(one, two)[n % 2].write({"n": n, "i": i}) for i in range(1_000)])
    records = read_metrics(path, strict=True)
    for n in range(4):
        assert [record["i"] for record in records if record["n"] == n] == list(range(1_000))


def test_an_error_in_the_block_is_not_hidden_and_loses_nothing(path):
    with pytest.raises(KeyError), MetricsLogger(path) as logger:
        logger.write({"loss": 1})
        raise KeyError("the loop's own")
    assert len(read_metrics(path)) == 1


def test_the_lock_is_given_back(path):
    with MetricsLogger(path) as logger, path.open() as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        logger.close()
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_repr_says_where_and_how_much(path):
    with MetricsLogger(path) as logger:
        logger.write({"loss": 1})
        logger.flush()
        assert (
            repr(logger) == f"<MetricsLogger {str(path)!r}, open, 1 written, 0 queued, 0 dropped>"
        )
    assert "closed" in repr(logger)


@pytest.mark.parametrize("copying", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_logger_cannot_be_copied(path, copying):
    with (
        MetricsLogger(path) as logger,
        pytest.raises(TypeError, match="make one there on the same path"),
    ):
        copying(logger)


@pytest.mark.parametrize(
    ("setting", "error", "named"),
    [
        ({"queue_size": 0}, ValueError, "0"),
        ({"queue_size": -3}, ValueError, "-3"),
        ({"queue_size": 1.5}, ValueError, "1.5"),
        ({"queue_size": True}, ValueError, "True"),
        ({"overflow": "wait"}, ValueError, "block, drop_oldest, drop_newest; not 'wait'"),
        ({"overflow": None}, ValueError, "None"),
        ({"flush_interval": -0.1}, ValueError, "-0.1"),
        ({"flush_interval": math.nan}, ValueError, "nan"),
        ({"flush_interval": math.inf}, ValueError, "inf"),
        ({"flush_interval": 1e12}, ValueError, "1000000000000.0"),
        ({"flush_interval": "0.1"}, ValueError, "'0.1'"),
        ({"backends": Recorder()}, TypeError, "a list of backends"),
        ({"backends": 3}, TypeError, "a list of backends.*3"),
        ({"backends": [Recorder]}, TypeError, "methods log and close.*Recorder"),
        ({"backends": [print]}, TypeError, "methods log and close.*print"),
        ({"backends": "wandb"}, TypeError, "methods log and close.*'w'"),
        ({"backends": [Uncallable()]}, TypeError, "methods log and close.*Uncallable"),
    ],
)
def test_a_bad_setting_is_named_at_once_and_leaves_no_file(path, setting, error, named):
    with pytest.raises(error, match=named):
        MetricsLogger(path, **setting)
    assert not path.parent.exists()


@pytest.mark.parametrize("path", ["s3://bucket/metrics.jsonl", "gs://b/m.jsonl", "file:///tmp/m"])
def test_a_url_is_refused(path):
    with pytest.raises(ValueError, match="is a URL"):
        MetricsLogger(path)


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        MetricsLogger(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        MetricsLogger(tmp_path / "file" / "metrics.jsonl")
    with pytest.raises(OSError, match="/proc/none"):
        MetricsLogger("/proc/none/metrics.jsonl")


def test_zero_is_an_interval_too(path):
    with MetricsLogger(path, flush_interval=0) as logger:
        for i in range(100):
            logger.write({"i": i})
    assert len(read_metrics(path)) == 100


def test_any_object_with_the_two_methods_is_a_backend():
    assert isinstance(Recorder(), LogBackend)
    assert not isinstance(object(), LogBackend)


def test_importing_the_logger_imports_nothing_heavy(run_python):
    script = """
import sys, vibe_rl.metrics
heavy = {"jax", "wandb", "tensorboardX", "torch", "tensorflow", "rich", "optax", "gymnax", "polars"}
print(heavy & set(sys.modules))
"""
    assert run_python(script)[:2] == (0, "set()\n")

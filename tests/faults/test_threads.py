"""Sixty-four threads on one logger, and loggers that are fed by what they log themselves."""

import logging
import math
import sys
import threading

import pytest

from vibe_rl.metrics import MetricsLogger, read_metrics

THREADS = 64


@pytest.fixture
def hasty():
    """Have Python change threads all the time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("overflow", ["block", "drop_oldest", "drop_newest"])
def test_sixty_four_threads_do_everything_at_once(overflow, tmp_path, scale):
    count = scale(60, 3_000)
    logger = MetricsLogger(tmp_path / "metrics.jsonl", queue_size=100, overflow=overflow)

    def work(thread):
        for i in range(count):
            match (thread + i) % 6:
                case 0:
                    logger.write_batch({"thread": thread, "i": i, "part": range(5)})
                case 1:
                    logger.flush(timeout=0.01)
                case 2:
                    repr(logger.stats)
                case _:
                    logger.write({"thread": thread, "i": i, "part": 0, "text": "x" * (i % 500)})

    threads = [threading.Thread(target=work, args=(n,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    logger.close()
    records = read_metrics(tmp_path / "metrics.jsonl", strict=True)
    calls = [(thread, i) for thread in range(THREADS) for i in range(count)]
    given = sum({0: 5, 1: 0, 2: 0}.get((thread + i) % 6, 1) for thread, i in calls)
    stats = logger.stats
    assert (len(records), stats.queued) == (stats.written, 0)
    assert stats.written + stats.dropped == given
    assert overflow != "block" or stats.dropped == 0
    for thread in range(THREADS):
        mine = [(record["i"], record["part"]) for record in records if record["thread"] == thread]
        assert mine == sorted(set(mine))


class Fed:
    """Logs a record for each that it gets, for ever."""

    def __init__(self):
        self.taken = 0

    def log(self, record, step=None):
        self.taken += 1
        try:
            self.logger.write({"answer": self.taken})
        except ValueError:  # the logger is closed
            self.refused = True

    def close(self): ...


def test_a_backend_that_answers_each_record_ends_with_the_logger(tmp_path):
    backend = Fed()
    backend.logger = logger = MetricsLogger(tmp_path / "metrics.jsonl", [backend], queue_size=2)
    logger.write({"answer": 0})
    assert logger.flush()
    logger.close()
    assert len(read_metrics(logger.path, strict=True)) == backend.taken
    assert backend.refused


@pytest.mark.parametrize("defer", [0, 1])
def test_the_writer_s_own_thread_never_waits_for_room(tmp_path, defer):
    """Which it would have to make itself, when a logging handler logs what that thread says."""

    class Handler(logging.Handler):
        def emit(self, message):
            if message.threadName == "vibe_rl writer":
                logger.write({"message": message.getMessage()})

    logger = MetricsLogger(tmp_path / "metrics.jsonl", queue_size=1, defer=defer)
    handler = Handler()
    logging.getLogger("vibe_rl").addHandler(handler)
    try:
        for i in range(200):
            logger.write({f"metric {i}": math.nan})  # a warning for each
        logger.flush()
    finally:
        logging.getLogger("vibe_rl").removeHandler(handler)
    logger.close()
    records = read_metrics(logger.path, strict=True)
    assert [name for record in records for name in record if name.startswith("metric")] == [
        f"metric {i}" for i in range(200)
    ]
    assert sum("message" in record for record in records) == 200


def test_a_logging_handler_that_raises_has_nothing_appended_twice(tmp_path, capfd):
    class Handler(logging.Handler):
        def emit(self, message):
            raise RuntimeError("no such channel")

    handler = Handler()
    logging.getLogger("vibe_rl").addHandler(handler)
    try:
        with MetricsLogger(tmp_path / "metrics.jsonl") as logger:
            for i in range(5):
                logger.write({"i": i, f"metric {i}": math.nan})
                logger.flush()
    finally:
        logging.getLogger("vibe_rl").removeHandler(handler)
    assert [record["i"] for record in read_metrics(logger.path)] == list(range(5))
    assert "no such channel" in capfd.readouterr().err


def test_a_logging_handler_that_logs_what_we_log_is_fed_no_more_than_that(tmp_path):
    """Each of our messages becomes a record; that record is no reason for another message."""
    log = logging.getLogger("vibe_rl")
    said = []

    class Handler(logging.Handler):
        def emit(self, message):
            said.append(message.getMessage())
            logger.write({"message": message.getMessage()})

    class Broken:
        is_back = False

        def log(self, record, step=None):
            if not self.is_back:
                raise RuntimeError("not yet")

        def close(self): ...

    backend = Broken()
    logger = MetricsLogger(tmp_path / "metrics.jsonl", [backend], queue_size=1)
    handler = Handler()
    log.addHandler(handler)
    try:
        for i in range(200):
            logger.write({"i": i})
        assert not logger.flush(timeout=0.2)
        assert 0 < len(said) < 6
        backend.is_back = True
        assert logger.flush()
    finally:
        log.removeHandler(handler)
    logger.close()
    records = read_metrics(logger.path, strict=True)
    assert [record["i"] for record in records if "i" in record] == list(range(200))
    assert [record["message"] for record in records if "message" in record] == said

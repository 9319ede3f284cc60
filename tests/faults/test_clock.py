"""The clock is set back, or the process stopped for a while: `wall_time` never goes backwards."""

import signal
import time

import pytest
from service_files import tensorboard_scalars

from vibe_rl.metrics import MetricsLogger, TensorBoardBackend, read_metrics


@pytest.mark.parametrize("jump", [-3_600, 3_600])
def test_the_clock_is_set_while_a_logger_is_open(jump, tmp_path, monkeypatch):
    real, offset = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: real() + offset)
    monkeypatch.setattr(time, "time_ns", lambda: round((real() + offset) * 1e9))
    path = tmp_path / "metrics.jsonl"
    start = real()
    with MetricsLogger(path, [TensorBoardBackend(tmp_path)]) as logger:
        for i in range(100):
            if i == 50:
                logger.flush()
                offset = jump
            logger.write({"step": i})
    end = real()
    times = [record["wall_time"] for record in read_metrics(path)]
    assert times == sorted(times)
    assert times[-1] <= end - start
    points = [at for at, _, _ in tensorboard_scalars(tmp_path)["step"]]
    assert points == sorted(points)
    assert start - 1 <= points[0] <= points[-1] <= end + 1


@pytest.mark.parametrize("jump", [-3_600, 3_600])
def test_the_clock_is_set_while_a_backend_is_awaited(jump, tmp_path, monkeypatch):
    real, offset = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: real() + offset)

    class Failing:
        """Raises once, after the clock was set: an hour without a sign of life would end it."""

        def log(self, record, step=None):
            nonlocal offset
            if record["step"] == 50 and not offset:
                while not logger._feeds._feeds[0].closing:
                    time.sleep(0.001)
                offset = jump
                raise RuntimeError("not yet")
            taken.append(record["step"])

        def close(self): ...

    taken = []
    logger = MetricsLogger(tmp_path / "metrics.jsonl", [Failing()])
    for i in range(100):
        logger.write({"step": i})
    assert logger.close()
    assert taken == list(range(100))


def test_a_logger_that_opens_after_the_clock_was_set_back_goes_on_in_the_file(
    tmp_path, monkeypatch
):
    real, path = time.time, tmp_path / "metrics.jsonl"
    for offset in (0, -3_600):
        monkeypatch.setattr(time, "time", lambda offset=offset: real() + offset)
        with MetricsLogger(path, [TensorBoardBackend(tmp_path)]) as logger:
            logger.write({"step": offset})
    assert [record["step"] for record in read_metrics(path)] == [0, -3_600]
    assert len(tensorboard_scalars(tmp_path)["step"]) == 2


STOPPED = """
import sys, time
from vibe_rl.metrics import MetricsLogger
from vibe_rl.metrics.feed import tickets

class Busy:
    def log(self, record, step=None):
        until = time.thread_time() + 0.1
        while time.thread_time() < until:
            pass
        taken.append(record["i"])
    def close(self):
        print(taken, flush=True)

taken = []
tickets.PATIENCE_S = 3.0
logger = MetricsLogger("metrics.jsonl", [Busy()])
for i in range(15):
    logger.write({"i": i})
print("closing", flush=True)
print(logger.close(), flush=True)
"""


def test_a_process_that_is_stopped_for_long_gives_nobody_up(python, tmp_path):
    """As by Ctrl-Z, or a job that is suspended; here, for longer than a backend may hang."""
    process = python(STOPPED)
    process.stdout.readline()
    time.sleep(0.35)  # in the middle of a record
    process.send_signal(signal.SIGSTOP)
    time.sleep(3.5)
    process.send_signal(signal.SIGCONT)
    assert process.communicate() == (f"{list(range(15))}\nTrue\n", "")
    times = [record["wall_time"] for record in read_metrics(tmp_path / "metrics.jsonl")]
    assert times == sorted(times)

"""Isolated backends: whoever dies, trainer or process, nothing is missing and nothing is left."""

import math
import os
import random
import signal
import sys
import threading
import time
import types

import pytest
import recorders
from children import LINUX, processes, wait_until
from recorders import Dying, FileBackend, is_complete, taken
from service_files import tensorboard_scalars, wandb_files, wandb_records, wandb_rows

from vibe_rl.metrics import (
    MetricsLogger,
    TensorBoardBackend,
    WandbBackend,
    isolated,
    read_metrics,
)
from vibe_rl.metrics.feed.cursor import cursor_path
from vibe_rl.metrics.isolation.child import Child
from vibe_rl.metrics.lines import Position


def test_a_process_that_dies_is_started_again_and_nothing_is_missing(path, log, tmp_path, caplog):
    backend = isolated(Dying, log, at=700, marker=tmp_path / "died")
    with MetricsLogger(path, [backend]) as logger:
        for i in range(1_000):
            logger.write({"i": i})
            if i == 600:
                assert logger.flush()  # so that no more than what follows comes again
    assert is_complete(taken(log), range(1_000), repeats=99)
    assert caplog.text.count("it is started again") == 1


def test_a_process_that_dies_each_time_is_given_up(path, log, caplog, monkeypatch):
    monkeypatch.setattr(sys.modules["vibe_rl.metrics.isolation.isolated"], "_RESTART_S", (0, 0, 0))
    logger = MetricsLogger(path, [isolated(Dying, log, at=3)])
    for i in range(10):
        logger.write({"i": i})
    assert logger.close() is False
    assert "Dying is given up" in caplog.text
    assert "vibe-rl sync" in caplog.text
    assert caplog.text.count("it is started again") == 1
    # What it has not had is still there for the next one.
    with MetricsLogger(path, [isolated(FileBackend, log, identity="Dying 0")]):
        pass
    assert taken(log)[-7:] == list(range(3, 10))


def test_a_process_that_dies_of_being_closed_is_given_up(path, log, caplog, monkeypatch):
    monkeypatch.setattr(sys.modules["vibe_rl.metrics.isolation.isolated"], "_RESTART_S", (0, 0, 0))
    logger = MetricsLogger(path, [isolated(recorders.DyingInClose, log)])
    logger.write({"i": 0})
    assert logger.close() is False
    assert "DyingInClose is given up" in caplog.text
    assert 0 in taken(log)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning", "ignore:.*fork.*:RuntimeWarning")
def test_a_forked_child_reads_what_is_known_of_the_backend(log):
    backend = isolated(FileBackend, log)
    pid = os.fork()
    if pid == 0:
        os._exit(backend._settled == math.inf and backend.run_id == "run backend")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    backend.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("holds", [False, True])
def test_the_process_may_be_killed_at_any_moment(path, log, scale, holds):
    backend = isolated(FileBackend, log, holds=holds)
    with MetricsLogger(path, [backend]) as logger:
        written, most = kill_again_and_again(logger, backend, scale(3, 30), scale(1, 4))
    assert is_complete(taken(log), range(written), repeats=most)


def kill_again_and_again(logger, backend, times, seconds):
    """Kill a backend's process while records are written, at most so many seconds each time.

    Gives the number of records, and how many were written between a `flush()` and a kill at most.
    """
    rng = random.Random(0)  # noqa: S311 - moments to kill at
    written = most = 0
    for _ in range(times):
        assert logger.flush()
        flushed, before = written, backend.stats.logged
        until = time.monotonic() + rng.uniform(0, seconds)
        # One that dies again and again before it has taken anything new is given up.
        while time.monotonic() < until or backend.stats.logged <= before:
            logger.write({"i": written})
            written += 1
            time.sleep(0.001)
        most = max(most, written - flushed)
        os.kill(backend._process.pid, signal.SIGKILL)
    return written, most


@LINUX
@pytest.mark.timeout(600)
def test_wandb_s_process_may_be_killed_at_any_moment(path, tmp_path, scale, monkeypatch):
    for name, value in {"SILENT": "true", "DIR": str(tmp_path), "MODE": "offline"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    backend = isolated(WandbBackend, run_dir=tmp_path)
    with MetricsLogger(path, [backend]) as logger:
        written, most = kill_again_and_again(logger, backend, scale(3, 30), scale(1, 4))
    rows = [row["i"] for file in wandb_files(tmp_path) for row in wandb_rows(file)]
    assert is_complete(rows, range(written), repeats=most)


def test_without_a_cursor_a_process_that_died_goes_on_after_what_was_flushed(path, log, caplog):
    cursor_path(path, "FileBackend 0").mkdir()
    backend = isolated(FileBackend, log, holds=True)
    with MetricsLogger(path, [backend]) as logger:
        for i in range(200):
            if i == 100:
                wait_until(lambda: backend.stats.logged == 100)
                os.kill(backend.pid, signal.SIGKILL)
            logger.write({"i": i})
    assert "no cursor" in caplog.text
    assert is_complete(taken(log), range(200), repeats=100)


@pytest.mark.timeout(900)
def test_a_process_that_dies_but_gets_on_is_not_given_up(path, log):
    """Though it has never caught up in between."""
    backend = isolated(recorders.Slow, log, 0.005)
    with MetricsLogger(path, [backend]) as logger:
        for i in range(1_000):
            logger.write({"i": i})
        for k in range(1, 6):
            wait_until(lambda k=k: logger.stats.backends["Slow"].logged > 20 * k)
            os.kill(pid := backend._process.pid, signal.SIGKILL)
            wait_until(lambda pid=pid: backend._process.pid != pid)
    assert is_complete(taken(log), range(1_000), repeats=1_000)  # for nothing was flushed


TRAINER = """
import sys, time
sys.path[:] = sys.argv[2:]
from recorders import FileBackend
from vibe_rl.metrics import MetricsLogger, TensorBoardBackend, isolated
logger = MetricsLogger("metrics.jsonl", [
    TensorBoardBackend("tb"),
    isolated(FileBackend, "backend", holds=True),
    isolated(TensorBoardBackend, "tb2"),
])
i = int(sys.argv[1])
while True:
    logger.write({"i": i, "step": i})
    i += 1
    if i == int(sys.argv[1]) + 20:
        logger.flush()  # so that no more than what follows comes again
        print("ready", flush=True)
    time.sleep(0.0005)
"""


def tensorboard_steps(directory):
    return [step for _, step, _ in tensorboard_scalars(directory)["i"]]


@LINUX
@pytest.mark.timeout(600)
def test_the_trainer_may_be_killed_at_any_moment(path, log, tmp_path, python, scale):
    rng = random.Random(1)  # noqa: S311 - moments to kill at
    first = most = 0
    for _ in range(scale(3, 30)):
        trainer = python(TRAINER, first, *sys.path)
        assert trainer.stdout.readline() == "ready\n", trainer.communicate()
        time.sleep(rng.uniform(0.05, scale(1.5, 5)))  # feeds save where they are every 2 s
        trainer.kill()
        trainer.communicate()
        wait_until(lambda: not processes(tmp_path))
        numbers = [record["i"] for record in read_metrics(path)]
        # The isolated ones have everything already, and once: they outlive the trainer.
        assert taken(log) == numbers
        most = max(most, numbers[-1] + 1 - first)
        first = numbers[-1] + 1
    numbers = [record["i"] for record in read_metrics(path)]
    MetricsLogger(path, [TensorBoardBackend(tmp_path / "tb")]).close()
    assert is_complete(tensorboard_steps(tmp_path / "tb"), numbers, repeats=most)
    assert tensorboard_steps(tmp_path / "tb2") == numbers


WANDB_TRAINER = """
import sys, time
sys.path[:] = sys.argv[2:]
from vibe_rl.metrics import MetricsLogger, TensorBoardBackend, WandbBackend, isolated
logger = MetricsLogger("metrics.jsonl", [
    TensorBoardBackend("tb"),
    isolated(WandbBackend, run_dir="run", mode="offline"),
])
i = int(sys.argv[1])
while True:
    logger.write({"i": i, "step": i})
    i += 1
    if i == int(sys.argv[1]) + 20:
        logger.flush()  # so that no more than what follows comes again
        print("ready", flush=True)
    time.sleep(0.002)
"""


@LINUX
@pytest.mark.timeout(600)
def test_wandb_and_tensorboard_get_everything_though_the_trainer_is_killed(
    path, tmp_path, python, scale, monkeypatch
):
    monkeypatch.setenv("WANDB_SILENT", "true")
    rng = random.Random(2)  # noqa: S311 - moments to kill at
    first = most = 0
    for _ in range(scale(3, 30)):
        trainer = python(WANDB_TRAINER, first, *sys.path)
        assert trainer.stdout.readline() == "ready\n", trainer.communicate()
        time.sleep(rng.uniform(0.5, scale(1.5, 4)))
        trainer.kill()
        trainer.communicate()
        wait_until(lambda: not processes(tmp_path, b""))  # W&B's own has ended too
        before, first = first, read_metrics(path)[-1]["i"] + 1
        most = max(most, first - before)
    MetricsLogger(path, [TensorBoardBackend(tmp_path / "tb")]).close()
    assert is_complete(tensorboard_steps(tmp_path / "tb"), range(first), repeats=most)
    files = wandb_files(tmp_path)
    rows = [row["i"] for file in files for row in wandb_rows(file)]
    assert rows == list(range(first))
    exits = [
        record.exit.exit_code
        for record in wandb_records(files[-1])
        if record.WhichOneof("record_type") == "exit"
    ]
    assert exits == [1]  # a trainer that was killed has not finished


def test_wandb_watches_the_trainer_and_not_the_process(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    backend = isolated(recorders.WatchingBackend, mode="offline")
    try:
        assert backend.watched == os.getpid()
    finally:
        backend.close()


@LINUX
def test_a_trainer_that_is_killed_leaves_no_process_even_if_the_backend_hangs(tmp_path, python):
    script = """
import sys
sys.path[:] = sys.argv[1:]
from recorders import Hanging
from vibe_rl.metrics import MetricsLogger, isolated
logger = MetricsLogger("metrics.jsonl", [isolated(Hanging, "backend", patience=1)])
logger.write({"i": 0})
print("ready", flush=True)
sys.stdin.read()
"""
    trainer = python(script, *sys.path)
    assert trainer.stdout.readline() == "ready\n", trainer.communicate()
    time.sleep(0.5)
    assert processes(tmp_path)
    trainer.kill()
    wait_until(lambda: not processes(tmp_path))


@LINUX
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_that_are_meant_for_the_trainer_do_not_end_the_process(path, log, number, caplog):
    backend = isolated(FileBackend, log)
    os.kill(backend.pid, number)
    with MetricsLogger(path, [backend]) as logger:
        logger.write({"i": 0})
    assert taken(log) == [0]
    assert "started again" not in caplog.text


@LINUX
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning", "ignore:.*fork.*:RuntimeWarning")
def test_a_forked_child_that_lives_on_does_not_keep_the_process(tmp_path, python):
    script = """
import os, sys, time
sys.path[:] = sys.argv[1:]
from recorders import FileBackend
from vibe_rl.metrics import MetricsLogger, isolated
logger = MetricsLogger("metrics.jsonl", [isolated(FileBackend, "backend")])
logger.write({"i": 0})
logger.flush()
child = os.fork()
if child == 0:
    time.sleep(60)
print(child, flush=True)
sys.stdin.read()
"""
    trainer = python(script, *sys.path)
    child = int(trainer.stdout.readline())
    try:
        trainer.kill()
        wait_until(lambda: not processes(tmp_path))
        assert taken(tmp_path / "backend") == [0]
    finally:
        os.kill(child, signal.SIGKILL)


@LINUX
def test_who_reads_the_trainer_s_output_does_not_wait_for_the_process(tmp_path, python):
    script = """
import sys
sys.path[:] = sys.argv[1:]
from recorders import Hanging
from vibe_rl.metrics import MetricsLogger, isolated
logger = MetricsLogger("metrics.jsonl", [isolated(Hanging, "backend", patience=100)])
logger.write({"i": 0})
print("ready", flush=True)
sys.stdin.read()
"""
    trainer = python(script, *sys.path)
    assert trainer.stdout.readline() == "ready\n", trainer.communicate()
    left = processes(tmp_path)
    trainer.kill()
    trainer.communicate(timeout=60)  # to the end of its output and errors
    assert processes(tmp_path) == left
    for pid in left:
        os.kill(pid, signal.SIGKILL)


def test_a_forgotten_close_delivers_everything(tmp_path, run_python):
    script = """
import sys
sys.path[:] = sys.argv[1:]
from recorders import FileBackend
from vibe_rl.metrics import MetricsLogger, isolated
logger = MetricsLogger("metrics.jsonl", [isolated(FileBackend, "backend"), FileBackend("thread")])
for i in range(1000):
    logger.write({"i": i})
"""
    status, _, err = run_python(script, *sys.path)
    assert (status, err) == (0, "")
    assert taken(tmp_path / "backend") == taken(tmp_path / "thread") == list(range(1000))
    assert (tmp_path / "backend.closed").exists()


def test_no_status_overtakes_a_later_one():
    told = []

    class FeedAtItsEnd:
        """Its thread settles while the other one is putting its status together."""

        is_refused, saved, logged, settled = False, Position(0, 0), 99, (4.0, 4.0)
        settles = None

        @property
        def stats(self):
            return types.SimpleNamespace(logged=self.logged, failed=0)

        @property
        def position(self):
            if self.settles is None:
                self.settles = threading.Thread(target=self.settle)
                self.settles.start()
                self.settles.join(0.2)
            return Position(0, 0)

        def settle(self):
            self.logged, self.settled = 100, (math.inf, math.inf)
            child._tell()

    child = Child(types.SimpleNamespace(send=lambda message: told.append(message[1])))
    child._feed = FeedAtItsEnd()
    child._tell()
    child._feed.settles.join()
    assert [status.logged for status in told] == [99, 100]

"""Isolated backends: the same as on a thread, in a process that outlives and survives."""

import functools
import math
import os
import random
import signal
import sys
import threading
import time
import types
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import recorders
from recorders import Complaining, Dying, FileBackend, Named, is_complete, taken
from service_files import tensorboard_scalars, wandb_files, wandb_records, wandb_rows

from vibe_rl.metrics import (
    MetricsLogger,
    TensorBoardBackend,
    WandbBackend,
    isolated,
    read_metrics,
    resume_wandb,
)
from vibe_rl.metrics.feed.cursor import cursor_path
from vibe_rl.metrics.isolation.child import Child
from vibe_rl.metrics.lines import Position

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux has /proc")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


@pytest.fixture
def log(tmp_path):
    return tmp_path / "backend"


def processes(directory, program=b"isolation.child"):
    """The isolated processes, or those of another program, that work in this directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            here = (entry / "cwd").readlink() == Path(directory)
            if here and program in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


# -- as on a thread -------------------------------------------------------------------------------


def test_records_flush_counts_and_attributes_are_as_on_a_thread(path, log):
    backend = isolated(FileBackend, log, holds=True)
    assert backend.run_id == "run backend"
    assert backend.pid != os.getpid()
    with MetricsLogger(path, [backend]) as logger:
        for i in range(500):
            logger.write({"i": i})
        assert logger.flush()
        assert taken(log) == list(range(500))
        stats = logger.stats.backends["FileBackend"]
        assert (stats.logged, stats.failed, stats.behind) == (500, 0, 0)
        logger.write({"i": 500})
    assert taken(log) == list(range(501))
    assert log.with_suffix(".closed").exists()
    assert logger.stats.backends["FileBackend"].logged == 501
    assert backend.run_id == "run backend"  # also when the process has ended


def test_the_process_has_ended_when_close_returns(path, log):
    backend = isolated(FileBackend, log)
    pid = backend.pid
    MetricsLogger(path, [backend]).close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_errors_are_logged_and_counted_here(path, log, caplog):
    with MetricsLogger(path, [isolated(Complaining, log, at=3)]) as logger:
        for i in range(10):
            logger.write({"i": i, "step": i})
    assert logger.stats.backends["Complaining"].failed == 1
    assert "Complaining raised ZeroDivisionError at step 3" in caplog.text
    assert "Traceback" in caplog.text
    assert taken(log) == [i for i in range(10) if i != 3]


def test_an_isolated_backend_goes_on_where_one_on_a_thread_was(path, log):
    for make in (FileBackend, lambda *args: isolated(FileBackend, *args), FileBackend):
        with MetricsLogger(path, [make(log)]) as logger:
            for _ in range(10):
                logger.write({"i": logger.stats.queued})
    assert len(taken(log)) == 30


def test_it_is_called_what_the_backend_calls_itself_as_on_a_thread(path, log):
    for backend in (Named(log), isolated(Named, log)):
        with MetricsLogger(path, [backend]) as logger:
            logger.write({"i": 0})
        assert list(logger.stats.backends) == ["named"]
    assert len(list(path.parent.glob("metrics.named-*.cursor.json"))) == 1
    assert not list(path.parent.glob("metrics.Named-*"))


def test_it_is_a_backend_without_a_logger_too(log):
    backend = isolated(FileBackend, log)
    backend.log({"i": np.int32(1)}, step=3)
    with pytest.raises(KeyError, match="i"):
        backend.log({}, step=4)
    backend.close()
    assert taken(log) == [1]
    assert log.with_suffix(".closed").exists()


def test_unknown_attributes_and_methods_are_attribute_errors(log):
    backend = isolated(FileBackend, log)
    with pytest.raises(AttributeError, match="nothing"):
        _ = backend.nothing
    with pytest.raises(AttributeError, match="as_posix"):
        _ = backend.as_posix
    with pytest.raises(AttributeError, match="_holds"):  # it has one, but that is its own
        _ = backend._holds
    backend.close()


def test_flush_is_as_on_a_thread_with_and_without_a_logger(path, log):
    alone = isolated(FileBackend, log, holds=True)
    alone.log({"i": 0})
    assert taken(log) == []
    alone.flush()
    assert taken(log) == [0]
    alone.close()
    alone.flush()  # nothing is left to flush
    followed = isolated(FileBackend, log, holds=True)
    with MetricsLogger(path, [followed]) as logger:
        logger.write({"i": 1})
        while logger.stats.queued:
            time.sleep(0.01)
        followed.flush()
        assert taken(log) == [0, 1]


def test_a_backend_that_cannot_be_flushed_need_not_be(log):
    backend = isolated(recorders.Unflushable, log)
    backend.flush()
    backend.close()


def test_a_process_that_died_while_nobody_waited_answers_when_it_is_back(path, log):
    backend = isolated(FileBackend, log)
    with MetricsLogger(path, [backend]):
        first = backend.pid
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: backend._process.pid != first)
        assert backend.pid == backend._process.pid


def test_a_file_that_cannot_be_followed_is_said_and_ends_nothing_else(path, log, caplog):
    backend = isolated(FileBackend, log)
    backend.follow(path, Position(0, 0), name="FileBackend", nth=0)  # there is no such file
    assert backend.wait(backend.ask(close=True), None) is False
    assert "can't follow" in caplog.text
    assert log.with_suffix(".closed").exists()


def test_one_isolated_backend_serves_one_logger(tmp_path, log):
    backend = isolated(FileBackend, log)
    with (
        MetricsLogger(tmp_path / "a.jsonl", [backend]),
        pytest.raises(ValueError, match="one for each logger"),
    ):
        MetricsLogger(tmp_path / "b.jsonl", [backend])


@LINUX
def test_who_asks_a_process_that_is_stopped_is_not_stopped_too(path, log):
    backend = isolated(FileBackend, log)
    with MetricsLogger(path, [backend]) as logger:
        logger.write({"i": 0})
        assert logger.flush()
        os.kill(pid := backend.pid, signal.SIGSTOP)
        try:
            for _ in range(3_000):  # far more messages than the connection takes
                assert backend.wait(backend.ask(), time.monotonic()) is False
            assert backend._outbox.qsize() <= 1
            logger.write({"i": 1})
        finally:
            os.kill(pid, signal.SIGCONT)
    assert taken(log) == [0, 1]


def test_a_refused_one_is_as_quiet_as_on_a_thread(path, log, tmp_path, caplog):
    first = isolated(FileBackend, log, identity="same")
    second = isolated(FileBackend, tmp_path / "other", identity="same")
    with MetricsLogger(path, [first, second]) as logger:
        for i in range(10):
            logger.write({"i": i})
            assert logger.flush() is False
        assert [stats.behind for stats in logger.stats.backends.values()] == [0, 0]
    assert taken(log) + taken(tmp_path / "other") == list(range(10))
    (said,) = (record.message for record in caplog.records)
    assert "is refused: another feed delivers" in said


def test_a_thread_that_the_backend_leaves_behind_does_not_keep_the_process(path, log, monkeypatch):
    # Else its end would take as long as this test may.
    monkeypatch.setattr(sys.modules["vibe_rl.metrics.isolation.isolated"], "_END_S", 60.0)
    backend = isolated(recorders.Lingering, log)
    pid = backend.pid
    with MetricsLogger(path, [backend]) as logger:
        logger.write({"i": 0})
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert taken(log) == [0]


def test_no_property_is_read_but_what_is_asked_for(path, log):
    backend = isolated(recorders.Costly, log)
    with MetricsLogger(path, [backend]) as logger:
        logger.write({"i": 0})
        with pytest.raises(SystemExit):  # as on a thread
            _ = backend.costly
        assert logger.flush()
    assert taken(log) == [0]
    assert backend.unit == "s"


def test_close_with_a_timeout_leaves_it_to_the_process(path, log, caplog):
    logger = MetricsLogger(path, [isolated(recorders.Slow, log, 0.1)])
    for i in range(20):
        logger.write({"i": i})
    assert logger.close(timeout=0.2) is False
    assert "Slow did not take the last" in caplog.text
    wait_until(log.with_suffix(".closed").exists)
    assert taken(log) == list(range(20))


# -- construction ---------------------------------------------------------------------------------


def test_construction_errors_arrive_as_they_are():
    with pytest.raises(LookupError, match="no such project") as caught:
        isolated(recorders.Refusing, "no such project")
    assert "recorders.py" in caught.value.__notes__[0]
    with pytest.raises(RuntimeError, match="_LockedError"):
        isolated(recorders.Unpicklable)
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        isolated(FileBackend, "x", colour="red")


def test_an_identity_that_raises_is_an_error_at_once(path, log):
    with pytest.raises(ValueError, match="no identity yet"):
        isolated(recorders.Unidentified, log)
    backend = recorders.Unidentified(log)
    with pytest.raises(ValueError, match="no identity yet"):  # as on a thread
        MetricsLogger(path, [backend])
    backend.close()


@pytest.mark.parametrize(
    "bad",
    [
        3,
        "FileBackend",
        recorders.Incomplete,
        recorders.make_incomplete,
        recorders.Uncallable,
        recorders.make_uncallable,
    ],
)
def test_what_makes_no_backend_is_a_type_error(bad):
    with pytest.raises(TypeError, match="log and close"):
        isolated(bad)


def test_what_the_process_cannot_import_is_an_error_at_once(run_python):
    class Local(FileBackend): ...

    with pytest.raises(TypeError, match="Local"):
        isolated(Local, "x")
    with pytest.raises(TypeError, match="lambda"):
        isolated(FileBackend, lambda: 3)
    with Path(os.devnull).open() as file, pytest.raises(TypeError, match="TextIOWrapper"):
        isolated(FileBackend, file)
    script = """
from vibe_rl.metrics import isolated
class Mine:
    def log(self, record, step=None): ...
    def close(self): ...
isolated(Mine)
"""
    status, _, err = run_python(script)
    assert status == 1
    assert "TypeError: Mine is defined in the script that runs" in err


def test_what_would_import_jax_is_an_error_at_once():
    with pytest.raises(TypeError, match="import JAX"):
        isolated(FileBackend, "x", identity=jnp.float32)


def test_jax_values_travel_as_host_values_and_the_process_never_imports_jax(log):
    config = {"lr": jnp.float32(0.5), "layers": [jnp.arange(3), (jnp.bfloat16(1),)]}
    backend = isolated(recorders.Echo, log, config)
    assert "float32(0.5)" in backend.given
    assert "array([0, 1, 2]" in backend.given
    assert backend.has_jax is False
    backend.close()


@pytest.mark.parametrize(
    "make",
    [
        WandbBackend,
        resume_wandb,
        functools.partial(WandbBackend, project="rl"),
        functools.partial(functools.partial(resume_wandb), project="rl"),
        recorders.WatchingBackend,
    ],
)
def test_other_processes_of_a_job_start_no_run(make, tmp_path, monkeypatch):
    monkeypatch.setattr("vibe_rl.metrics.backends.inert.process_index", lambda: 1)
    backend = isolated(make, run_dir=tmp_path, mode="offline")
    assert backend.run_id is None
    assert not list(tmp_path.iterdir())


# -- priority and place ---------------------------------------------------------------------------


@LINUX
def test_it_has_a_session_of_its_own_and_the_lowest_priority(log):
    backend = isolated(FileBackend, log)
    pid = backend.pid
    assert os.getsid(pid) == pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        assert os.sched_getscheduler(int(task.name)) == os.SCHED_IDLE
    autogroup = Path(f"/proc/{pid}/autogroup")
    if autogroup.exists() and Path("/proc/sys/kernel/sched_autogroup_enabled").read_text() != "0\n":
        assert autogroup.read_text().endswith("nice 19\n")
        # Ours keeps its own: "nice 0", or nothing at all where a service started us in no group.
        assert not Path("/proc/self/autogroup").read_text().endswith("nice 19\n")
    backend.close()


def test_relative_paths_mean_the_directory_where_it_was_built(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    backend = isolated(FileBackend, "backend")
    logger = MetricsLogger("metrics.jsonl", [backend])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    os.kill(backend.pid, signal.SIGKILL)
    logger.write({"i": 0})
    logger.close()
    assert taken(tmp_path / "backend") == [0]


# -- deaths ---------------------------------------------------------------------------------------


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

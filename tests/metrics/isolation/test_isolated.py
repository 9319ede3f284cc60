"""Isolated backends: the same as on a thread, in a process that outlives and survives."""

import functools
import os
import signal
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import recorders
from children import LINUX, wait_until
from recorders import Complaining, FileBackend, Named, taken

from vibe_rl.metrics import (
    MetricsLogger,
    WandbBackend,
    isolated,
    resume_wandb,
)
from vibe_rl.metrics.lines import Position

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
    logger.flush(backends=False)
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


def test_a_function_starts_no_run_on_other_processes_either(tmp_path, monkeypatch):
    for module in ("backends.inert", "isolation.isolated"):
        monkeypatch.setattr(f"vibe_rl.metrics.{module}.process_index", lambda: 1)
    backend = isolated(recorders.offline_run, tmp_path)
    assert backend.run_id is None
    backend.close()
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

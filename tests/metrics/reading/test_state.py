"""Whether a run is under way, and how it ended."""

import json
import signal
import time

import pytest

from vibe_rl.metrics import MetricsLogger
from vibe_rl.metrics.append import process_path, writers_path
from vibe_rl.metrics.reading.state import RunState, run_state
from vibe_rl.run_dir import RunDir

LOG_UNTIL_KILLED = """
import sys, time
from vibe_rl.metrics import MetricsLogger
logger = MetricsLogger(sys.argv[1])
logger.write({"step": 0})
logger.flush()
print("logged", flush=True)
time.sleep(100)
"""


def test_a_run_without_a_logger_is_unknown(tmp_path):
    run = RunDir("x", tmp_path)
    assert run_state(run) == RunState("unknown")
    run.log_path().write_bytes(b'{"step":0}\n')
    assert run_state(run.root) == RunState("unknown")


def test_a_run_is_running_until_its_logger_is_closed(tmp_path):
    before = time.time()
    path = tmp_path / "metrics.jsonl"
    logger = MetricsLogger(path)
    assert run_state(path).state == "running"
    assert run_state(path).ended is None
    logger.close()
    state = run_state(path)
    assert (state.state, state.how, state.killed) == ("finished", "closed", 0)
    assert before <= state.opened <= state.ended <= time.time()


def test_an_error_in_the_block_is_a_crash_until_the_run_goes_on(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with pytest.raises(ZeroDivisionError), MetricsLogger(path):
        1 / 0  # noqa: B018
    assert (run_state(path).state, run_state(path).how) == ("crashed", "ZeroDivisionError")
    MetricsLogger(path).close()
    assert run_state(path).state == "finished"


def test_a_killed_run_has_crashed(tmp_path, python):
    path = tmp_path / "metrics.jsonl"
    process = python(LOG_UNTIL_KILLED, path)
    assert process.stdout.readline() == "logged\n"
    assert run_state(path).state == "running"
    process.send_signal(signal.SIGKILL)
    process.wait()
    state = run_state(path)
    assert (state.state, state.how, state.killed) == ("crashed", None, 1)
    assert state.ended == path.stat().st_mtime
    MetricsLogger(path).close()
    assert (run_state(path).state, run_state(path).killed) == ("finished", 1)


def test_a_job_runs_while_any_of_its_processes_does(tmp_path):
    path = tmp_path / "metrics.jsonl"
    loggers = [MetricsLogger(process_path(path, process)) for process in range(3)]
    for logger in loggers:
        assert run_state(path).state == "running"
        logger.close()
    assert run_state(path).state == "finished"
    with pytest.raises(OSError, match="disk"), MetricsLogger(process_path(path, 1)):
        raise OSError("disk")
    assert run_state(path).state == "crashed"


def test_looking_at_a_run_changes_nothing(tmp_path):
    run = RunDir("x", tmp_path)
    MetricsLogger(run).close()
    before = {each: each.stat().st_mtime_ns for each in run.root.rglob("*")}
    run_state(run)
    assert {each: each.stat().st_mtime_ns for each in run.root.rglob("*")} == before


@pytest.mark.parametrize("time", [1.0, 1])  # as JavaScript writes it
def test_notes_of_foreign_make_do_no_harm(tmp_path, time):
    path = tmp_path / "metrics.jsonl"
    path.touch()
    notes = [{"event": "open", "time": time, "pid": 1, "byte": 0, "ordinal": 0}, {"event": "?"}, 3]
    writers_path(path).write_text("".join(json.dumps(note) + "\n" for note in notes) + "{")
    assert run_state(path).state == "crashed"

"""Reading a file while it is written."""

import threading

import pytest

from vibe_rl.metrics import MetricsLogger, iter_metrics
from vibe_rl.metrics.append import process_path
from vibe_rl.metrics.reading import follow, state
from vibe_rl.metrics.reading.follow import tail_and_follow
from vibe_rl.metrics.reading.state import RunState, run_state
from vibe_rl.metrics.reading.tail import tail_records

LOG_ON = """
import sys
from vibe_rl.metrics import MetricsLogger
logger = MetricsLogger(sys.argv[1])
for step in range(int(sys.stdin.readline())):
    logger.write({"step": step})
logger.flush()
print("logged", flush=True)
sys.stdin.readline()
logger.close()
"""


def steps(records):
    return [record["step"] for record in records]


def followed(path):
    """A logger that has logged step 0, and the records that follow it."""
    logger = MetricsLogger(path)
    logger.write({"step": 0})
    logger.flush()
    records = iter_metrics(path, follow=True)
    assert next(records)["step"] == 0
    return logger, records


def test_records_come_as_they_land_and_end_with_the_logger(tmp_path):
    path = tmp_path / "metrics.jsonl"
    logger = MetricsLogger(path)
    records = iter_metrics(path, follow=True)
    for step in range(5):
        logger.write({"step": step})
        assert next(records)["step"] == step
    logger.write({"step": 5})
    logger.close()
    assert steps(records) == [5]


def test_a_file_that_is_not_there_yet_is_waited_for(tmp_path):
    path = tmp_path / "logs" / "metrics.jsonl"
    read = []
    thread = threading.Thread(target=lambda: read.extend(iter_metrics(path, follow=True)))
    thread.start()
    with MetricsLogger(path) as logger:
        for step in range(1000):
            logger.write({"step": step})
    thread.join()
    assert steps(read) == list(range(1000))


def test_a_killed_logger_ends_it_too(tmp_path, python):
    path = tmp_path / "metrics.jsonl"
    process = python(LOG_ON, path)
    process.stdin.write("300\n")
    process.stdin.flush()
    records = iter_metrics(path, follow=True)
    assert steps(next(records) for _ in range(300)) == list(range(300))
    assert process.stdout.readline() == "logged\n"
    process.kill()
    assert list(records) == []


def test_a_time_out_ends_the_wait_for_a_logger_that_says_nothing(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLogger(path) as logger:
        logger.write({"step": 0})
        logger.flush()
        assert steps(iter_metrics(path, follow=True, timeout=0.2)) == [0]
    foreign = tmp_path / "foreign.jsonl"
    foreign.write_bytes(b'{"step":1}\n{"step":2')
    assert steps(iter_metrics(foreign, follow=True, timeout=0)) == [1]
    with pytest.raises(ValueError, match="give follow=True"):
        iter_metrics(path, timeout=1)


def test_a_torn_line_waits_for_its_rest(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step":0}\n{"st')
    records = iter_metrics(path, follow=True)
    assert next(records) == {"step": 0}
    with path.open("ab") as file:
        file.write(b'ep":1}\n')
    assert next(records) == {"step": 1}


def test_a_file_that_another_takes_the_place_of_is_read_to_its_end_and_then_the_other(tmp_path):
    path = tmp_path / "metrics.jsonl"
    logger, records = followed(path)
    logger.write({"step": 1})
    logger.flush()
    path.rename(tmp_path / "metrics.1.jsonl")
    logger.write({"step": 2})
    logger.close()
    assert steps(records) == [1, 2]


def test_a_live_run_whose_file_was_moved_has_not_ended(tmp_path, between_looks):
    path = tmp_path / "metrics.jsonl"
    logger, records = followed(path)

    def write(step):
        logger.write({"step": step})
        logger.flush()

    between_looks(
        lambda: path.rename(tmp_path / "metrics.1.jsonl"),
        lambda: None,
        lambda: write(1),
        lambda: (path.rename(tmp_path / "metrics.2.jsonl"), path.touch()),
        lambda: None,
        lambda: write(2),
        logger.close,
    )
    assert steps(records) == [1, 2]


def test_a_run_whose_logger_goes_on_while_it_is_asked_has_not_ended(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    first, records = followed(path)
    path.rename(tmp_path / "metrics.1.jsonl")
    states = []
    second = []

    def asked(path):
        states.append(run_state(path).state)
        if len(states) == 1:  # the first lets go of the old file, the second has the new one
            second.append(MetricsLogger(path))
            first.close()
        if len(states) == 2:
            second[0].write({"step": 1})
            second[0].close()
        return RunState(states[-1])

    monkeypatch.setattr(follow, "run_state", asked)
    assert steps(records) == [1]
    assert states[:2] == ["crashed", "running"]


def test_a_process_of_a_job_whose_file_was_moved_has_not_ended(tmp_path, between_looks):
    path = tmp_path / "metrics.jsonl"
    paths = [process_path(path, process) for process in range(2)]
    loggers = [MetricsLogger(each) for each in paths]
    loggers[1].write({"step": 0})
    loggers[1].flush()
    records = iter_metrics(path, follow=True)
    assert next(records)["step"] == 0
    between_looks(
        lambda: (loggers[0].close(), paths[1].rename(tmp_path / "away")),
        lambda: None,
        lambda: loggers[1].write({"step": 1}) or loggers[1].close(),
    )
    assert steps(records) == [1]


def test_a_killed_logger_whose_file_was_moved_has_ended(tmp_path, python):
    path = tmp_path / "metrics.jsonl"
    process = python(LOG_ON, path)
    process.stdin.write("1\n")
    process.stdin.flush()
    records = iter_metrics(path, follow=True)
    assert next(records)["step"] == 0
    path.rename(tmp_path / "metrics.1.jsonl")
    process.kill()
    assert list(records) == []


def test_of_loggers_that_have_noted_their_end_no_lock_is_asked(tmp_path, monkeypatch):
    """For where locks don't work, each file may be locked."""
    path = tmp_path / "metrics.jsonl"
    with MetricsLogger(path) as logger:
        logger.write({"step": 0})
    for module in (follow, state):
        monkeypatch.setattr(module, "is_locked", lambda fd: pytest.fail("it was asked"))
    assert steps(iter_metrics(path, follow=True)) == [0]


def test_what_lands_after_the_newest_records_is_read_wherever_it_lands(tmp_path, between_looks):
    path = tmp_path / "metrics.jsonl"
    logger = MetricsLogger(path)

    def write(*steps):
        for step in steps:
            logger.write({"step": step})
        logger.flush()

    write(0, 1, 2)
    between_looks(
        lambda: (write(3), path.rename(tmp_path / "metrics.1.jsonl")),  # unseen by its name
        lambda: write(4),
        lambda: (write(5), path.rename(tmp_path / "metrics.2.jsonl"), write(6)),
        logger.close,
    )
    found = tail_and_follow(path, 2)
    assert steps(next(found)) == [1, 2]
    assert steps(record for records in found for record in records) == [3, 4, 5, 6]


def test_a_file_that_is_moved_while_its_newest_records_are_read_is_read_anew(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    with MetricsLogger(path) as logger:
        logger.write({"step": 0})
        logger.flush()

        def moved(path, n):
            monkeypatch.undo()
            path.rename(tmp_path / "metrics.1.jsonl")
            logger.write({"step": 1})
            logger.flush()
            return tail_records(path, n)

        monkeypatch.setattr(follow, "tail_records", moved)
        found = tail_and_follow(path, 9)
        assert steps(next(found)) == [1]
    assert list(found) == []


def test_a_run_that_goes_back_to_a_step_goes_on_from_there(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLogger(path) as logger:
        for step in range(5):
            logger.write({"step": step})
    first = MetricsLogger(path)
    records = iter_metrics(path, follow=True)
    assert steps(next(records) for _ in range(5)) == list(range(5))
    first.close()
    with MetricsLogger(path, resume_step=2) as logger:
        logger.write({"step": 3})
        logger.flush()
        assert next(records)["step"] == 3


def test_the_files_of_a_job_are_followed_together(tmp_path):
    path = tmp_path / "metrics.jsonl"
    loggers = [MetricsLogger(process_path(path, process)) for process in range(2)]
    records = iter_metrics(path, follow=True)
    for process in (0, 1, 1, 0):
        loggers[process].write({"process": process})
        assert next(records)["process"] == process
    loggers[0].close()
    loggers[1].write({"process": 1})
    loggers[1].close()
    assert [record["process"] for record in records] == [1]


def test_a_corrupt_line_is_said_with_its_place(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"a":1}\n{"a":\n{"a":3}\n')
    with pytest.warns(UserWarning, match="line 2: not a record"):
        assert list(iter_metrics(path, follow=True, timeout=0)) == [{"a": 1}, {"a": 3}]
    with pytest.raises(ValueError, match="line 2"):
        list(iter_metrics(path, follow=True, timeout=0, strict=True))

"""Reading a file while it is written."""

import threading

import pytest

from vibe_rl.metrics import MetricsLogger, iter_metrics
from vibe_rl.metrics.append import process_path

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
    logger = MetricsLogger(path)
    logger.write({"step": 0})
    logger.flush()
    records = iter_metrics(path, follow=True)
    assert next(records)["step"] == 0
    logger.write({"step": 1})
    logger.flush()
    path.rename(tmp_path / "metrics.1.jsonl")
    logger.write({"step": 2})
    logger.close()
    assert steps(records) == [1, 2]


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

"""Other processes read, lock, repair and append to the file: no record is lost, none is cut."""

import fcntl
import os
import signal
import warnings

import pytest

from vibe_rl.metrics import MetricsLogger, read_metrics
from vibe_rl.metrics.append import MetricsFile

TORN = b'{"n":"torn'


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def numbers(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [record["n"] for record in read_metrics(path)]


def append(path, data):
    with path.open("ab", buffering=0) as file:
        file.write(data)


@pytest.mark.parametrize("tail", [TORN, TORN[:1], b'{"n":"other"}', b"\n\n", b"\0\0\0"])
def test_what_a_dead_process_has_left_costs_the_living_no_record(tail, path):
    with MetricsLogger(path) as logger:
        for n in range(5):
            logger.write({"n": n})
            logger.flush()
            append(path, tail)
        assert numbers(path).count("other") in (0, 4, 5)
    assert [n for n in numbers(path) if n != "other"] == list(range(5))


def test_an_append_under_way_is_not_taken_for_torn(path, monkeypatch):
    file = MetricsFile(path)
    append(path, b'{"n":')
    pieces = iter([b"1", b"2", b"}\n"])
    monkeypatch.setattr("time.sleep", lambda _: append(path, next(pieces)))
    file.append(memoryview(b'{"n":0}\n'))
    file.close("closed")
    assert path.read_bytes() == b'{"n":12}\n{"n":0}\n'


@pytest.mark.parametrize("how", [fcntl.LOCK_SH, fcntl.LOCK_EX])
def test_a_lock_of_somebody_elses_delays_opening_at_most(how, path, monkeypatch):
    monkeypatch.setattr("vibe_rl.metrics.locks._PATIENCE_S", 0.1)
    append(path, TORN)
    fd = os.open(path, os.O_RDONLY)
    fcntl.flock(fd, how)
    with MetricsLogger(path) as logger:
        logger.write({"n": 0})
    os.close(fd)
    assert path.read_bytes().startswith(TORN + b"\n")  # nothing is cut without the lock
    assert numbers(path) == [0]


SCRIPT = """
import os, sys
from vibe_rl.metrics import MetricsLogger

sys.stdin.readline()
with MetricsLogger("metrics.jsonl", flush_interval=0) as logger:
    for i in range(int(sys.argv[2])):
        # Some are long, for whose appends to be seen half-finished.
        size = 50_000 if i % 10 == 0 and i < 4_000 else i % 2_000
        logger.write({"n": [int(sys.argv[1]), i], "text": "x" * size})
    if sys.argv[1] == "0":
        os.abort()
"""

OPENER = """
import sys
from vibe_rl.metrics import MetricsLogger, read_metrics

print("go", flush=True)
while True:
    for _ in range(50):
        MetricsLogger("metrics.jsonl").close()
    read_metrics("metrics.jsonl")
"""


def test_many_processes_append_while_others_open_read_and_repair(path, python, scale):
    writers, count = 4, scale(4_000, 100_000)
    opener = python(OPENER)
    opener.stdout.readline()
    processes = [python(SCRIPT, writer, count) for writer in range(writers)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        process.wait()
    opener.kill()
    assert [process.returncode for process in processes] == [-signal.SIGABRT, 0, 0, 0]
    got = numbers(path)
    for writer in range(1, writers):
        assert [i for who, i in got if who == writer] == list(range(count))
    aborted = [i for who, i in got if who == 0]
    assert aborted == list(range(len(aborted)))

"""A forked child: no deadlock, no line twice, its records in the file, the parent unharmed."""

import fcntl
import json
import os
import sys

import pytest
from recorders import taken
from service_files import tensorboard_scalars

from vibe_rl.metrics import MetricsLogger, read_metrics
from vibe_rl.metrics.append import read_writers

SCRIPT = """
import json, multiprocessing, os, signal, sys, threading, warnings
from vibe_rl.metrics import MetricsLogger

warnings.simplefilter("ignore")  # Python 3.12 dislikes a fork beside threads, which is the point
logger = MetricsLogger("metrics.jsonl", queue_size=256)
stop, counts = threading.Event(), [0, 0]

def write_on(thread):
    while not stop.is_set():
        logger.write({"thread": thread, "i": counts[thread]})
        counts[thread] += 1

def write_some(child):
    for i in range(50):
        logger.write({"child": child, "i": i})
    logger.flush()

threads = [threading.Thread(target=write_on, args=(n,)) for n in range(2)]
for thread in threads:
    thread.start()
children = int(sys.argv[1])
for child in range(children):
    if child % 4 == 3:
        process = multiprocessing.get_context("fork").Process(target=write_some, args=(child,))
        process.start()
        process.join()
        assert process.exitcode == 0
    elif pid := os.fork():
        os.waitpid(pid, 0)
    else:
        write_some(child)
        if child % 4 == 0:
            os._exit(0)
        if child % 4 == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        stop.set()
        sys.exit()
stop.set()
for thread in threads:
    thread.join()
logger.close()
print(json.dumps(counts))
"""


def test_fork_in_the_middle_of_heavy_writing(run_python, tmp_path, scale):
    children = scale(12, 400)
    status, out, err = run_python(SCRIPT, children)
    assert status == 0, err
    records = read_metrics(tmp_path / "metrics.jsonl", strict=True)
    for thread, count in enumerate(json.loads(out)):
        assert [r["i"] for r in records if r.get("thread") == thread] == list(range(count))
    for child in range(children):
        assert [r["i"] for r in records if r.get("child") == child] == list(range(50))
    notes = read_writers(tmp_path / "metrics.jsonl")
    assert [note["event"] for note in notes] == ["open", "close"]  # the parent's


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning", "ignore:.*fork.*:RuntimeWarning")
def test_a_child_that_closes_leaves_the_lock_to_the_parent(tmp_path):
    """Without which an opener would take an append of the parent's under way for a torn line."""
    with MetricsLogger(tmp_path / "metrics.jsonl") as logger:
        if (child := os.fork()) == 0:
            logger.write({"i": 0})
            logger.close()
            os._exit(0)
        os.waitpid(child, 0)
        with logger.path.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert len(read_metrics(logger.path)) == 1


LOCKED = """
import os, signal, threading, time, warnings
from vibe_rl.metrics import MetricsLogger

warnings.simplefilter("ignore")
logger = MetricsLogger("metrics.jsonl")
held, done = threading.Event(), threading.Event()

def hold():
    with logger._writer._changed:
        held.set()
        done.wait()

threading.Thread(target=hold).start()
held.wait()
pid = os.fork()
if pid == 0:
    signal.alarm(20)  # kills a child that waits for good
    logger.write({"i": 0})
    logger.flush()
    os._exit(0)
print(os.waitpid(pid, 0)[1])
done.set()
logger.close()
"""


def test_fork_while_another_thread_holds_the_queue_s_lock(run_python, tmp_path):
    """The child has the lock, but not the thread that would give it back."""
    status, out, err = run_python(LOCKED)
    assert (status, out) == (0, "0\n"), err
    assert [record["i"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [0]


BACKENDS = """
import os, signal, sys, warnings
sys.path[:] = sys.argv[1:]
from recorders import FileBackend
from vibe_rl.metrics import MetricsLogger, TensorBoardBackend, isolated

warnings.simplefilter("ignore")
backends = [FileBackend("log", holds=True), TensorBoardBackend("tensorboard"),
            isolated(FileBackend, "isolated")]
logger = MetricsLogger("metrics.jsonl", backends)
i = 0
for child in range(9):
    for _ in range(300):
        logger.write({"i": i})
        i += 1
    pid = os.fork()
    if pid == 0:
        for n in range(100):
            logger.write({"i": 100_000 * (child + 1) + n})
        if child % 3 == 0:
            logger.close()
            sys.exit()
        if child % 3 == 1:
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
logger.close()
"""


def test_backends_stay_the_parents_and_get_what_children_write(run_python, tmp_path):
    status, out, err = run_python(BACKENDS, *sys.path)
    assert (status, out) == (0, ""), err
    numbers = [record["i"] for record in read_metrics(tmp_path / "metrics.jsonl", strict=True)]
    assert len(numbers) == 9 * 400
    assert [i for i in numbers if i < 100_000] == list(range(9 * 300))
    for child in range(1, 10):
        first = 100_000 * child
        mine = [i for i in numbers if i // 100_000 == child]
        assert mine == list(range(first, first + 100))
    assert taken(tmp_path / "log") == numbers
    assert taken(tmp_path / "isolated") == numbers
    points = tensorboard_scalars(tmp_path / "tensorboard")["i"]
    assert [value for _, _, value in points] == numbers

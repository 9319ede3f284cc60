"""A full disk: the loop goes on, nothing is torn or written twice, and all lands once it can."""

import json
import warnings

import pytest

from vibe_rl.metrics import MetricsLogger, read_metrics

SCRIPT = """
import logging, os, resource, sys
from vibe_rl.metrics import MetricsLogger, read_metrics

path = sys.argv[1]

def fill():
    if sys.argv[2] == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(path) + 1_001, -1))
        return
    with open(f"{path}.ballast", "wb", buffering=0) as ballast:
        try:
            while ballast.write(bytes(4096)):
                pass
        except OSError:
            pass

def free():
    if sys.argv[2] == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
    else:
        os.unlink(f"{path}.ballast")

def write(count):
    for _ in range(count):
        logger.write({"n": write.n, "text": "x" * 50})
        write.n += 1

def is_lost(call):
    try:
        call()
    except OSError as error:
        print(error)
        lost = logger.stats.queued
        assert str(error).count(f"{lost} records have not landed"), (error, lost)
        assert lost + logger.stats.written == write.n
        return True

write.n = 0
logger = MetricsLogger(path)
write(500)
logger.flush()
for _ in range(2):
    fill()
    write(500)
    assert is_lost(logger.flush)
    write(500)
    assert is_lost(logger.flush)
    read = read_metrics(path, strict=True)
    assert [record["n"] for record in read] == list(range(len(read))), "torn or twice"
    free()
    write(1)
    assert logger.flush()
    assert [r["n"] for r in read_metrics(path, strict=True)] == list(range(write.n))
fill()
write(500)
assert is_lost(logger.close)
assert logger.close() is False
free()
with MetricsLogger(path) as logger:
    logger.write({"n": "later"})
"""


def check(status, err, path):
    assert status == 0, err
    numbers = [record["n"] for record in read_metrics(path, strict=True)]
    assert numbers[-1] == "later"
    assert 2_502 <= len(numbers) - 1 < 3_002
    assert numbers[:-1] == list(range(len(numbers) - 1))
    assert "can't append to the metrics file" in err


def test_a_full_disk_and_then_space_again(small_disk, run_python):
    path = small_disk / "metrics.jsonl"
    status, _, err = run_python(SCRIPT, path, "disk")
    check(status, err, path)
    assert "No space left on device" in err


def test_a_file_that_may_not_grow_and_then_may(tmp_path, run_python):
    path = tmp_path / "metrics.jsonl"
    status, _, err = run_python(SCRIPT, path, "limit")
    check(status, err, path)
    assert "File too large" in err


FULL = """
import os, resource, sys, threading, time
from vibe_rl.metrics import MetricsLogger

path, overflow = "metrics.jsonl", sys.argv[1]

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, -1))

def write(*numbers):
    for n in numbers:
        logger.write({"n": n})

logger = MetricsLogger(path, queue_size=100, overflow=overflow)
write(0)
logger.flush()
limit(os.path.getsize(path))
write(1)
try:
    logger.flush()
except OSError as error:
    assert "1 records have not landed" in str(error)
# Its thread holds that record now, and takes no other: so the queue holds the next hundred.
writing = threading.Thread(target=write, args=range(2, 1_000), daemon=True)
writing.start()
if overflow == "block":
    while logger.stats.queued < 101:
        time.sleep(0.01)
else:
    writing.join()  # for ever, if it waited for the disk
stats = logger.stats
assert (stats.written, stats.queued) == (1, 101), stats
assert writing.is_alive() == (overflow == "block")
limit(-1)
writing.join()
assert logger.flush()
assert logger.stats.dropped == stats.dropped
print(stats.dropped)
"""


@pytest.mark.parametrize(
    ("overflow", "landed"),
    [
        ("block", [*range(1_000)]),
        ("drop_newest", [*range(102)]),
        ("drop_oldest", [0, 1, *range(900, 1_000)]),
    ],
)
def test_a_full_disk_and_a_full_queue(overflow, landed, run_python, tmp_path):
    status, out, err = run_python(FULL, overflow)
    assert status == 0, err
    numbers = [record["n"] for record in read_metrics(tmp_path / "metrics.jsonl", strict=True)]
    assert numbers == landed
    assert int(out) == 1_000 - len(landed)
    assert "the queue of 100 records is full" in err


HALF = """
import os, resource, subprocess, sys, threading
from vibe_rl.metrics import MetricsLogger

class Taker:
    def __init__(self):
        self.taken = []

    def log(self, record, step=None):
        self.taken.append(record["n"])

    def close(self):
        pass

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, -1))

def with_room():
    limit(-1)

def write(*numbers):
    for n in numbers:
        logger.write({"n": n, "wall_time": 0})

path, fault, missing = "metrics.jsonl", sys.argv[1], int(sys.argv[2])
logger = MetricsLogger(path, [taker := Taker()])
append, at_rest = logger._writer._append, threading.RLock()

def append_unless_at_rest(lines):
    with at_rest:
        return append(lines)

logger._writer._append = append_unless_at_rest
write(100, 101)
logger.flush()
size = os.path.getsize(path)
limit(size + size // 2 - missing)
write(102, 103)
try:
    logger.flush()
except OSError as error:
    assert "2 records have not landed" in str(error)
assert os.path.getsize(path) == size + size // 2 - missing
at_rest.acquire()  # or it might look at the file before that befalls it, and append after
match fault:
    case "deleted":
        os.unlink(path)
    case "rotated":
        os.rename(path, "rotated.jsonl")
    case "emptied":
        os.truncate(path, 0)
    case "emptied and filled":  # from elsewhere, for with room here too, the logger would go on
        other = "open('metrics.jsonl', 'w').write('{\\\"n\\\":7}\\\\n' * 20)"
        subprocess.run([sys.executable, "-c", other], check=True, preexec_fn=with_room)
    case "cut":
        os.truncate(path, size + 1)
    case "appended to":
        other = "from vibe_rl.metrics import *; MetricsLogger('metrics.jsonl').write({'n': 7})"
        subprocess.run([sys.executable, "-c", other], check=True, preexec_fn=with_room)
    case "forked":
        limit(-1)
        if os.fork() == 0:
            write(7)
            os._exit(0)
        os.wait()
limit(-1)
at_rest.release()
write(104)
assert logger.flush()
assert logger.stats.written == 5
logger.close()
print(taker.taken)
"""


@pytest.mark.parametrize("missing", [1, 9], ids=["its newline", "its end"])
@pytest.mark.parametrize(
    "fault",
    [
        "none",
        "deleted",
        "rotated",
        "emptied",
        "emptied and filled",
        "cut",
        "appended to",
        "forked",
    ],
)
def test_a_line_of_which_a_part_is_there_when_something_befalls_the_file(
    fault, missing, run_python, tmp_path
):
    """It is whole in the end, and there once, in a file that begins with a line."""
    status, out, err = run_python(HALF, fault, missing)
    assert status == 0, err
    with warnings.catch_warnings(action="ignore"):  # of the part, if it is there still
        numbers = [record["n"] for record in read_metrics(tmp_path / "metrics.jsonl")]
    is_new = fault in ("deleted", "rotated", "emptied", "emptied and filled")
    old = [] if is_new else [100, 101]
    others = {"emptied and filled": [7] * 20, "appended to": [7], "forked": [7]}.get(fault, [])
    assert sorted(numbers) == sorted([*others, *old, 102, 103, 104])
    if not others and fault != "cut":
        read_metrics(tmp_path / "metrics.jsonl", strict=True)
    assert sorted(json.loads(out)) == sorted([*others, 100, 101, 102, 103, 104])


def test_a_repair_that_has_no_room_cuts_nothing(small_disk):
    path = small_disk / "metrics.jsonl"
    torn = b'{"n":0}\n{"n":' + b"1" * 200_000
    path.write_bytes(torn)
    (small_disk / "ballast").write_bytes(bytes((1 << 20) - 200_000 - (1 << 14)))
    with pytest.raises(OSError, match="No space left"):
        MetricsLogger(path)
    assert path.read_bytes() == torn
    (small_disk / "ballast").unlink()
    MetricsLogger(path).close()
    assert read_metrics(path, strict=True) == [{"n": 0}]

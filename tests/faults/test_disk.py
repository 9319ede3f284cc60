"""A full disk: the loop goes on, nothing is torn or written twice, and all lands once it can."""

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

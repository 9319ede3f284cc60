"""Locks that are refused as NFS refuses them: exclusive ones to a descriptor that may not write.

See "NFS details" in flock(2). There is no NFS server in the tests; else the locks are real.
"""

import errno
import fcntl
import os
import signal
from pathlib import Path

import pytest
from recorders import FileBackend, taken

from vibe_rl.metrics import MetricsLogger, iter_metrics
from vibe_rl.metrics.feed.cursor import is_in_use
from vibe_rl.metrics.reading.state import run_state

SCRIPT = """
logger = MetricsLogger("metrics.jsonl")
for n in range(100):
    log(logger, n)
logger.flush()
print("logged", flush=True)
time.sleep(1_000)
"""


@pytest.fixture(autouse=True)
def nfs(monkeypatch):
    flock = fcntl.flock

    def flock_of_nfs(file, how):
        fd = file if isinstance(file, int) else file.fileno()
        access = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
        needed = {fcntl.LOCK_EX: os.O_WRONLY, fcntl.LOCK_SH: os.O_RDONLY}.get(how & ~fcntl.LOCK_NB)
        if needed is not None and access not in (needed, os.O_RDWR):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", flock_of_nfs)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="opens files anew by /proc")
def test_a_killed_run_is_told_from_one_under_way(child, tmp_path):
    path = tmp_path / "metrics.jsonl"
    process, _ = child(SCRIPT)
    assert process.stdout.readline() == "logged\n"
    assert run_state(path).state == "running"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert run_state(path).state == "crashed"
    assert [record["n"] for record in iter_metrics(path, follow=True)] == list(range(100))


def test_a_backend_is_in_use_until_its_logger_ends(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLogger(path, [FileBackend(tmp_path / "taken")]) as logger:
        logger.write({"i": 0})
        assert is_in_use(path, "FileBackend")
    assert not is_in_use(path, "FileBackend")
    assert taken(tmp_path / "taken") == [0]

"""A child that logs, and the account of what its `write()` accepted, which survives it; a disk."""

import subprocess

import numpy as np
import pytest

# Stands at the head of a child's script: `log(n)` writes record n, and then notes the time.
_HEAD = """
import os, random, signal, sys, threading, time
import numpy as np
from vibe_rl.metrics import MetricsLogger

accepted = np.memmap("accepted", np.float64, "r+")  # of each record: when write() had returned

def log(logger, n):
    logger.write({"n": n, "text": "x" * (n % 300)})
    accepted[n] = time.monotonic()
"""


class Account:
    """The times at which records were accepted, shared with the child."""

    def __init__(self, path):
        self._times = np.memmap(path, np.float64, "w+", shape=1_000_000)

    @property
    def times(self):
        """One for each accepted record, in order, on `time.monotonic()`'s clock."""
        return self._times[: np.count_nonzero(self._times)]


@pytest.fixture
def child(python, tmp_path):
    """Start a script that may use `log(logger, n)`: gives the process and its account."""

    def start(script, *args):
        account = Account(tmp_path / "accepted")
        return python(_HEAD + script, *args), account

    return start


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no right to mount a small file system; a limited file size stands in for it")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)

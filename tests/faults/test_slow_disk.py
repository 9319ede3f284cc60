"""A disk that stalls: `write()` doesn't wait for it while there is room, and then as promised.

A pipe that nobody reads stands in for the disk: `os.write` really blocks in the kernel. It shows
what our threads do meanwhile; it doesn't show what a real file system does to other files.
"""

import contextlib
import os
import resource
import threading
import time

import numpy as np
import pytest

from vibe_rl.metrics import MetricsLogger, read_metrics

QUEUE = 5_000


class StalledDisk:
    """Takes nothing until `recover()`; then all that was written goes where it should.

    Attributes:
        waits: Set once the writer's thread waits for it.
    """

    def __init__(self, logger):
        self._take, self._give = os.pipe()
        os.set_blocking(self._give, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self._give, b"\n")  # it is full from the start
        os.set_blocking(self._give, True)
        self._file = logger.path.open("ab", buffering=0)
        logger._writer._append = self._append
        self.waits = threading.Event()
        self._thread = threading.Thread(target=self._pump, daemon=True)

    def _append(self, data):
        self.waits.set()
        return os.write(self._give, data)

    def recover(self):
        self._thread.start()

    def end(self):
        """Wait until the file has it all."""
        os.close(self._give)
        self._thread.join()
        os.close(self._take)

    def _pump(self):
        while data := os.read(self._take, 1 << 16):
            self._file.write(data)
        self._file.close()


@pytest.fixture
def start(tmp_path):
    """Gives a logger whose disk has stalled, and the disk."""

    def start(**settings):
        logger = MetricsLogger(tmp_path / "metrics.jsonl", **settings)
        return logger, StalledDisk(logger)

    return start


def numbers(logger):
    return [record["n"] for record in read_metrics(logger.path, strict=True)]


def sleeps_so_far():
    """How often this thread has waited for anything but a core; 0 where no system counts that."""
    thread = getattr(resource, "RUSAGE_THREAD", None)
    return 0 if thread is None else resource.getrusage(thread).ru_nvcsw


def times_of_writes(logger, count):
    """In µs, at p50, p99 and p99.9; and how many slept, which no other load makes them do."""
    times, sleeps = np.empty(count), np.empty(count)
    for n in range(count):
        before = sleeps_so_far()
        begin = time.perf_counter_ns()
        logger.write({"n": n, "loss": 0.5})
        times[n] = time.perf_counter_ns() - begin
        sleeps[n] = sleeps_so_far() - before
    return np.percentile(times / 1e3, [50, 99, 99.9]).round(1).tolist(), np.count_nonzero(sleeps)


def test_no_write_waits_for_the_disk_while_there_is_room(start, tmp_path):
    with MetricsLogger(tmp_path / "other.jsonl", queue_size=QUEUE) as quick:
        unhindered, _ = times_of_writes(quick, QUEUE)
    logger, disk = start(queue_size=QUEUE)
    stalled, sleeps = times_of_writes(logger, QUEUE)  # one that waited would do so for ever
    assert logger.stats.written == 0
    assert logger.stats.queued == QUEUE
    disk.recover()
    logger.close()
    disk.end()
    assert numbers(logger) == list(range(QUEUE))
    assert sleeps < QUEUE / 1_000
    print(f"write(), µs at p50, p99 and p99.9: {unhindered} unhindered, {stalled} beside a stall")


def test_block_waits_for_the_disk_and_loses_nothing(start):
    logger, disk = start(queue_size=QUEUE)
    writing = threading.Thread(
        target=lambda: [logger.write({"n": n}) for n in range(3 * QUEUE)], daemon=True
    )
    writing.start()
    writing.join(1)
    assert writing.is_alive()
    assert logger.stats.written == 0
    assert logger.stats.queued <= QUEUE + 1_000  # those that the disk is just being given
    disk.recover()
    writing.join()
    logger.close()
    disk.end()
    assert numbers(logger) == list(range(3 * QUEUE))


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
def test_the_dropping_policies_never_wait(overflow, start):
    logger, disk = start(queue_size=QUEUE, overflow=overflow)
    logger.write({"n": 0})
    disk.waits.wait()  # else its thread makes room in the middle, as it comes to its turn
    for n in range(1, 3 * QUEUE):
        logger.write({"n": n})
    stats = logger.stats
    assert stats.written == 0
    assert stats.queued + stats.dropped == 3 * QUEUE
    disk.recover()
    logger.close()
    disk.end()
    kept = numbers(logger)
    assert len(kept) == stats.queued
    assert logger.stats.dropped == stats.dropped
    if overflow == "drop_newest":
        assert kept == list(range(1 + QUEUE))
    else:
        assert kept == [0, *range(2 * QUEUE, 3 * QUEUE)]

"""Feeds: a bad backend harms nobody else."""

import re
import threading
import time
import tracemalloc

import pytest
from feeding import Backend, impatient
from recorders import Raising

from vibe_rl.metrics import MetricsLogger, isolated, read_metrics
from vibe_rl.metrics.feed.feed import Feed


def bad_backend(kind, released):
    if kind == "slow":
        return Backend(lambda record, n: released.wait(1) and False)
    if kind == "always":
        return SlowToClose(lambda record, n: True)
    if kind == "every third":
        return Backend(lambda record, n: n % 3 == 2)
    return Backend(lambda record, n: released.wait())


class SlowToClose(Backend):
    def close(self):
        time.sleep(0.5)
        super().close()


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize("kind", ["slow", "always", "every third", "hangs"])
def test_a_bad_backend_harms_nobody_else(path, kind, scale, caplog):
    n = scale(3_000, 100_000)
    released = threading.Event()
    bad, good = bad_backend(kind, released), Backend()
    bad.name, good.name = "bad", "good"
    logger = MetricsLogger(path, [bad, good])
    for i in range(n):
        logger.write({"i": i})  # never waits: what hangs is released only at the end
    while logger.stats.backends["good"].logged < n:
        time.sleep(0.01)
    if kind == "always":
        time.sleep(1.5)  # so that its feed gives up as soon as it is asked to close, not when we do
    with impatient(30 if kind == "every third" else 1.5):
        delivered = logger.close(timeout=2) if kind == "slow" else logger.close()
    stats = logger.stats.backends
    assert good.numbers == list(range(n))
    assert (stats["good"].logged, stats["good"].behind) == (n, 0)
    assert [record["i"] for record in read_metrics(path)] == list(range(n))
    assert stats["bad"].failed == 0
    if kind == "every third":
        assert delivered
        assert bad.numbers == list(range(n))
    else:
        assert not delivered
        assert bad.closed == (kind == "always")  # the others are in the middle of a call
        left = int(re.search("bad did not take the last ([0-9]+) records", caplog.text)[1])
        assert left - (n - len(bad.numbers)) in (0, 1)  # one may have come through since
        assert stats["bad"].behind > 0
    released.set()


@pytest.mark.usefixtures("hurry")
def test_bad_backends_harm_nobody_else_together_either(path, scale, caplog):
    def hang(record, n):
        hangs.set()
        released.wait()

    n = scale(3_000, 100_000)
    hangs, released = threading.Event(), threading.Event()
    hanging, raising, good = Backend(hang), Backend(lambda record, n: True), Backend()
    hanging.name, raising.name, good.name = "hanging", "raising", "good"
    apart = isolated(Raising, patience=1.0)
    logger = MetricsLogger(path, [hanging, raising, apart, good])
    logger.write({"i": 0})
    hangs.wait()
    for i in range(1, n):
        logger.write({"i": i})
    # All of them have returned, though the one is in its first call, and the others have got over
    # no record.
    assert (hanging.calls, hanging.numbers, raising.numbers, apart.stats.logged) == (1, [], [], 0)
    while logger.stats.backends["good"].logged < n:
        time.sleep(0.01)
    time.sleep(1.5)  # as above
    with impatient(1.5):
        assert logger.close() is False
    assert good.numbers == [record["i"] for record in read_metrics(path)] == list(range(n))
    assert (good.closed, raising.closed) == (1, 1)
    for name in ("hanging", "raising", "Raising"):
        stats = logger.stats.backends[name]
        assert (stats.logged, stats.failed, stats.behind) == (0, 0, path.stat().st_size)
        assert f"{name} did not take the last {n} records" in caplog.text
    released.set()


def test_a_backend_that_raises_for_ten_minutes_gets_everything_then(path, scale, monkeypatch):
    n = scale(3_000, 100_000)
    pauses = []

    def pause(self, seconds, pause=Feed._pause):
        pauses.append(seconds)
        return pause(self, seconds / 1_000)  # the clock that the backend looks at is `pauses`

    monkeypatch.setattr(Feed, "_pause", pause)
    bad, good = Backend(lambda record, n: sum(pauses) < 600), Backend()
    bad.name, good.name = "bad", "good"
    with MetricsLogger(path, [bad, good]) as logger:
        for i in range(n):
            logger.write({"i": i})
        while logger.stats.backends["bad"].logged < n:
            time.sleep(0.01)
    assert good.numbers == bad.numbers == list(range(n))
    assert logger.stats.backends["bad"].failed == 0
    assert [seconds for seconds in pauses if seconds >= 1] == [1, 2, 4, 8, 16, *[30] * 19]


def test_memory_does_not_grow_with_the_backlog(path, scale):
    stuck, release = threading.Event(), threading.Event()
    backend = Backend(lambda record, n: stuck.set() or (release.wait() and False))
    logger = MetricsLogger(path, [backend])
    logger.write({"i": 0})
    stuck.wait()
    tracemalloc.start()
    try:
        for i in range(scale(50_000, 1_000_000)):
            logger.write({"i": i, "text": "x" * 100})
        while logger.stats.queued:
            time.sleep(0.01)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < path.stat().st_size / 4
    logger.close(timeout=0)
    release.set()

"""One core, and a writer's thread that hardly runs: bounds hold, and nothing deadlocks."""

import contextlib
import os
import sys
import threading

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import Primitive

from vibe_rl.metrics import MetricsLogger, read_metrics
from vibe_rl.metrics.jit.arrivals import Arrivals

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="can't choose its cores"
)

HEAD = """
import os, sys, threading, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from vibe_rl.metrics import MetricsLogger
"""

# Threads that never let go of the GIL by themselves, and keep it for long.
STARVED = """
sys.setswitchinterval(0.05)
logger = MetricsLogger("metrics.jsonl", queue_size=500, overflow=sys.argv[1])
count, stop, most = int(sys.argv[2]), threading.Event(), 0

def spin():
    while not stop.is_set():
        sum(range(10_000))

spinners = [threading.Thread(target=spin) for _ in range(2)]
for thread in spinners:
    thread.start()
for n in range(count):
    logger.write({"n": n})
    if n % 97 == 0:
        most = max(most, logger.stats.queued)
stop.set()
logger.close()
print(most, logger.stats.written, logger.stats.dropped)
"""


@pytest.mark.parametrize("overflow", ["block", "drop_oldest", "drop_newest"])
def test_a_writer_s_thread_that_is_starved(overflow, run_python, tmp_path, scale):
    count = scale(3_000, 50_000)
    status, out, err = run_python(HEAD + STARVED, overflow, count)
    assert status == 0, err
    most, written, dropped = map(int, out.split())
    assert most <= 500 + 1_000  # the queue, and what the thread is just appending
    assert written + dropped == count
    assert overflow != "block" or dropped == 0
    numbers = [record["n"] for record in read_metrics(tmp_path / "metrics.jsonl", strict=True)]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == written


INSIDE_JIT = """
os.environ["JAX_PLATFORMS"] = "cpu"
import jax, jax.numpy as jnp, numpy as np
sys.path[:] = sys.argv[1:]
from under_way import ends_with

# Nothing lands unless the queue is full, or somebody waits for it; and then slowly.
with MetricsLogger("metrics.jsonl", queue_size=8, flush_interval=3600) as logger:
    append = logger._writer._append
    logger._writer._append = lambda data: time.sleep(0.002) or append(data)

    def body(carry, n):
        carry = jnp.tanh(carry @ carry)
        logger.emit({"n": n, "norm": carry.sum()})
        return carry, None

    opened = threading.Event()
    run = jax.jit(lambda x, n: jax.lax.scan(body, x, n))
    carry, _ = run(jnp.ones((64, 64)), jnp.arange(500))
    logger.write({"after": carry[0, 0]})
    held = ends_with(lambda x: opened.wait() and np.asarray(x))
    # Under way when the block ends, for its input is.
    run(carry + held(0.0), jnp.arange(500, 1_000))
    threading.Timer(0.3, opened.set).start()
print(logger.stats.high_water)
"""


def test_callbacks_from_jit_wait_for_room_and_deadlock_nothing(run_python, tmp_path):
    status, out, err = run_python(HEAD + INSIDE_JIT, *sys.path)
    assert status == 0, err
    assert int(out) <= 8
    records = read_metrics(tmp_path / "metrics.jsonl", strict=True)
    assert sorted(int(record["n"]) for record in records if "n" in record) == list(range(1_000))
    assert sum("after" in record for record in records) == 1


def test_no_jax_operation_runs_where_a_callback_arrives(tmp_path, monkeypatch):
    """It could wait there for the very thread that it is on, though it seldom does."""
    inside, operations = threading.local(), []
    receive, bind = Arrivals.receive, Primitive.bind

    @contextlib.contextmanager
    def noted():
        inside.noted = True
        with jax.disable_jit():  # else JAX runs operations unseen
            yield
        inside.noted = False

    def spy(*args):
        with noted():
            receive(*args)  # which never raises

    def note(primitive, *args, **parameters):
        if getattr(inside, "noted", False):
            operations.append(primitive.name)
        return bind(primitive, *args, **parameters)

    monkeypatch.setattr(Arrivals, "receive", spy)
    monkeypatch.setattr(Primitive, "bind", note)
    with noted():
        jnp.ones(3).sum()
    assert "reduce_sum" in operations
    operations.clear()
    with MetricsLogger(tmp_path / "metrics.jsonl", flush_interval=0) as logger:

        @jax.jit
        def run(n):
            logger.emit({"n": n, "large": jnp.zeros(50_000)})  # in several pieces
            logger.scan(lambda _, n: (None, {"n": n, "loss": n / 2}), None, jnp.arange(5), every=2)

        run(0)
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 6
    assert operations == []

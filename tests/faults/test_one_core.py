"""One core, and a writer's thread that hardly runs: bounds hold, and nothing deadlocks."""

import os

import pytest

from vibe_rl.metrics import read_metrics

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
import jax, jax.numpy as jnp

with MetricsLogger("metrics.jsonl", queue_size=8) as logger:
    def body(carry, n):
        carry = jnp.tanh(carry @ carry)
        logger.emit({"n": n, "norm": carry.sum()})
        return carry, None

    for start in (0, 500):
        carry, _ = jax.jit(lambda x, n: jax.lax.scan(body, x, n))(
            jnp.ones((64, 64)), jnp.arange(start, start + 500)
        )
        logger.write({"after": carry[0, 0]})
"""


def test_callbacks_from_jit_wait_for_room_and_deadlock_nothing(run_python, tmp_path):
    status, _, err = run_python(HEAD + INSIDE_JIT)
    assert status == 0, err
    records = read_metrics(tmp_path / "metrics.jsonl", strict=True)
    assert sorted(int(record["n"]) for record in records if "n" in record) == list(range(1_000))
    assert sum("after" in record for record in records) == 2

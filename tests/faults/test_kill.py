"""A killed process loses a tenth of a second of records at most, and never spoils the file."""

import inspect
import itertools
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from vibe_rl.metrics import MetricsLogger, read_metrics

SCRIPT = """
pause = float(sys.argv[1])
logger = MetricsLogger("metrics.jsonl")
print("open", flush=True)
for n in range(len(accepted)):
    log(logger, n)
    if pause:
        time.sleep(pause)
"""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_what_a_killed_process_loses(how, child, tmp_path, scale):
    path = tmp_path / "metrics.jsonl"
    trials, ages, rng = scale(3, 50), [], np.random.default_rng()
    for trial in range(trials):
        path.unlink(missing_ok=True)
        process, account = child(SCRIPT, (0, 1e-4, 1e-2)[trial % 3])
        process.stdout.readline()
        time.sleep(1.6 * rng.uniform(trial, trial + 1) / trials)
        killed = time.monotonic()
        process.send_signal(how)
        assert process.wait() == -how

        numbers = [record["n"] for record in read_metrics(path, strict=True)]
        assert numbers == list(range(len(numbers)))  # so what is missing is the newest
        missing = account.times[len(numbers) :]
        ages.append(max(float(killed - missing[0]), 0) if len(missing) else 0)

        with MetricsLogger(path) as logger:
            logger.write({"n": "later"})
        assert [r["n"] for r in read_metrics(path, strict=True)] == [*numbers, "later"]
    ages.sort()
    print(f"age of the oldest missing record, s: {ages}")
    assert ages[-1] <= 1
    assert ages[int(0.95 * (trials - 1))] <= scale(1, 0.2)  # short runs share a busy machine


def test_lines_land_every_tenth_of_a_second(tmp_path):
    """What bounds the age of what is lost: the shortest of some intervals, as load adds to them."""
    assert inspect.signature(MetricsLogger).parameters["flush_interval"].default == 0.1
    times = []
    with MetricsLogger(tmp_path / "metrics.jsonl") as logger:
        append = logger._writer._append
        logger._writer._append = lambda data: times.append(time.monotonic()) or append(data)
        while len(times) < 8:
            logger.write({"n": 0})
            time.sleep(0.001)
    assert min(after - before for before, after in itertools.pairwise(times[:8])) < 0.2


def numbers_of_the_killed(process, path, count):
    """What is in the file of a process that is killed once so many lines are there."""
    deadline = time.monotonic() + 60
    while path.read_bytes().count(b"\n") < count and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    return [record["n"] for record in read_metrics(path, strict=True)]


def test_a_killed_process_loses_what_defer_holds_back(child, tmp_path):
    script = f"""
sys.path.append({str(Path(__file__).parents[1])!r})
from under_way import ends_with

never = ends_with(lambda x: time.sleep(1_000))
logger = MetricsLogger("metrics.jsonl", defer=4)
for n in range(100):
    log(logger, n)
logger.write({{"n": 100, "x": never(1.0)}})
for n in range(101, 104):
    log(logger, n)
print("held", flush=True)
time.sleep(1_000)
"""
    process, _ = child(script)
    assert process.stdout.readline() == "held\n"
    assert numbers_of_the_killed(process, tmp_path / "metrics.jsonl", 100) == list(range(100))


def test_a_killed_process_loses_the_iterations_that_scan_had_not_sent(child, tmp_path):
    script = """
import jax

def wait(n, last):
    if int(n) == 35:
        print("at 35", flush=True)
        time.sleep(1_000)
    return n

def step(last, n):
    n = jax.pure_callback(wait, n, n, last)
    return n, {"n": n}

logger = MetricsLogger("metrics.jsonl")
run = jax.jit(lambda: logger.scan(step, 0, jax.numpy.arange(100), every=10))
jax.block_until_ready(run())
"""
    process, _ = child(script)
    assert process.stdout.readline() == "at 35\n"
    assert numbers_of_the_killed(process, tmp_path / "metrics.jsonl", 30) == list(range(30))


def test_what_os_exit_loses(child, tmp_path):
    """It ends the process there and then, like a kill; what was flushed is safe."""
    script = """
logger = MetricsLogger("metrics.jsonl", flush_interval=3600)
for n in range(1_000):
    log(logger, n)
logger.flush()
for n in range(1_000, 1_500):
    log(logger, n)
os._exit(7)
"""
    process, account = child(script)
    assert process.wait() == 7
    assert len(account.times) == 1_500
    numbers = [record["n"] for record in read_metrics(tmp_path / "metrics.jsonl", strict=True)]
    assert numbers == list(range(len(numbers)))
    assert 1_000 <= len(numbers) < 1_500

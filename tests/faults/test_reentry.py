"""A signal handler may write, flush and close, whatever its thread was doing at that moment."""

from vibe_rl.metrics import read_metrics

SCRIPT = """
import signal, sys
from vibe_rl.metrics import MetricsLogger

queue_size, overflow, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
logger = MetricsLogger("metrics.jsonl", queue_size=queue_size, overflow=overflow)
handled, busy = 0, False

def handle(*_):
    global handled, busy
    if busy:  # on a busy machine, handlers would pile up on each other
        return
    busy = True
    handled += 1
    logger.write({"handled": handled})
    if handled % 10 == 0:
        logger.flush()
    busy = False

signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 2e-4, 2e-4)
for n in range(count):
    logger.write({"n": n})
    if n % 1_000 == 0:
        logger.flush()
signal.setitimer(signal.ITIMER_REAL, 0)
logger.close()
print(handled, logger.stats.dropped)
"""


def test_a_handler_that_writes_and_flushes(run_python, tmp_path, scale):
    for queue_size, overflow in ((64, "block"), (1, "block"), (64, "drop_oldest")):
        count = scale(10_000, 200_000)
        status, out, err = run_python(SCRIPT, queue_size, overflow, count)
        assert status == 0, err
        handled, dropped = map(int, out.split())
        assert handled > 0
        records = read_metrics(tmp_path / "metrics.jsonl", strict=True)
        assert len(records) + dropped == count + handled
        for name in ("n", "handled"):
            mine = [record[name] for record in records if name in record]
            assert mine == sorted(set(mine))
        (tmp_path / "metrics.jsonl").unlink()


def test_a_handler_that_closes(run_python, tmp_path):
    script = """
import signal, sys
from vibe_rl.metrics import MetricsLogger

logger = MetricsLogger("metrics.jsonl", queue_size=64)

def handle(*_):
    logger.close()
    sys.exit(5)

signal.signal(signal.SIGALRM, handle)
logger.write({"n": 0})
signal.setitimer(signal.ITIMER_REAL, 0.2)
n = 1
while True:
    logger.write({"n": n})
    n += 1
"""
    status, _, err = run_python(script)
    assert status == 5, err
    numbers = [record["n"] for record in read_metrics(tmp_path / "metrics.jsonl", strict=True)]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 0


def test_a_handler_that_closes_and_returns(run_python, tmp_path):
    """It mostly interrupts a `write()` that waits for room: that lands, or raises."""
    script = """
import signal
from vibe_rl.metrics import MetricsLogger

signal.signal(signal.SIGALRM, lambda *_: logger.close())
for trial in range(8):
    logger = MetricsLogger(f"{trial}.jsonl", queue_size=64)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    n = 0
    try:
        while True:
            logger.write({"n": n})
            n += 1
    except ValueError:
        print(n)
"""
    status, out, err = run_python(script)
    assert status == 0, err
    for trial, accepted in enumerate(map(int, out.split())):
        numbers = [record["n"] for record in read_metrics(tmp_path / f"{trial}.jsonl", strict=True)]
        assert numbers == list(range(accepted))

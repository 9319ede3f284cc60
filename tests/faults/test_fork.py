"""A forked child: no deadlock, no line twice, its records in the file, the parent unharmed."""

import json

from vibe_rl.metrics import read_metrics
from vibe_rl.metrics.append import read_writers

SCRIPT = """
import json, multiprocessing, os, signal, sys, threading, warnings
from vibe_rl.metrics import MetricsLogger

warnings.simplefilter("ignore")  # Python 3.12 dislikes a fork beside threads, which is the point
logger = MetricsLogger("metrics.jsonl", queue_size=256)
stop, counts = threading.Event(), [0, 0]

def write_on(thread):
    while not stop.is_set():
        logger.write({"thread": thread, "i": counts[thread]})
        counts[thread] += 1

def write_some(child):
    for i in range(50):
        logger.write({"child": child, "i": i})
    logger.flush()

threads = [threading.Thread(target=write_on, args=(n,)) for n in range(2)]
for thread in threads:
    thread.start()
children = int(sys.argv[1])
for child in range(children):
    if child % 4 == 3:
        process = multiprocessing.get_context("fork").Process(target=write_some, args=(child,))
        process.start()
        process.join()
        assert process.exitcode == 0
    elif pid := os.fork():
        os.waitpid(pid, 0)
    else:
        write_some(child)
        if child % 4 == 0:
            os._exit(0)
        if child % 4 == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        stop.set()
        sys.exit()
stop.set()
for thread in threads:
    thread.join()
logger.close()
print(json.dumps(counts))
"""


def test_fork_in_the_middle_of_heavy_writing(run_python, tmp_path, scale):
    children = scale(12, 400)
    status, out, err = run_python(SCRIPT, children)
    assert status == 0, err
    records = read_metrics(tmp_path / "metrics.jsonl", strict=True)
    for thread, count in enumerate(json.loads(out)):
        assert [r["i"] for r in records if r.get("thread") == thread] == list(range(count))
    for child in range(children):
        assert [r["i"] for r in records if r.get("child") == child] == list(range(50))
    notes = read_writers(tmp_path / "metrics.jsonl")
    assert [note["event"] for note in notes] == ["open", "close"]  # the parent's

"""Whatever way a program ends on its own: nothing that `write()` accepted is missing."""

import json
import os
import re
import signal
import sys
import threading
from pathlib import Path

import pytest
from service_files import tensorboard_scalars, wandb_files, wandb_rows

from vibe_rl.metrics import read_metrics
from vibe_rl.metrics.append import read_writers

# A backend that is slower than the loop, so that the end comes while it lags.
HEAD = """
class Slow:
    def log(self, record, step=None):
        time.sleep(0.0002)
        backend.write(b"%d\\n" % record["n"])
    def close(self):
        backend.close()

backend = open("backend", "wb")
logger = MetricsLogger("metrics.jsonl", [Slow()], flush_interval=float(sys.argv[1]))
begun = threading.Event()

def run(logger, count, pause=0):
    for n in range(count):
        log(logger, n)
        begun.set()
        if pause:
            time.sleep(pause)

def in_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
"""

ENDS = {
    "close is forgotten": ("run(logger, 500)", 0),
    "sys.exit": ("run(logger, 500); sys.exit(3)", 3),
    "sys.exit in the block": ("with logger: run(logger, 500); sys.exit(3)", 3),
    "an exception in the block": ("with logger: run(logger, 500); raise RuntimeError", 1),
    "an exception": ("run(logger, 500); raise RuntimeError", 1),
    "sys.exit in a thread": ("in_thread(lambda: (run(logger, 500), sys.exit(3)))", 0),
    "a thread goes on after the main one": (
        "threading.Timer(0.2, run, (logger, 500)).start()",
        0,
    ),
    "an exit hook writes": ("import atexit; atexit.register(run, logger, 500)", 0),
    "a handler that calls sys.exit, and SIGTERM": (
        """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
run(logger, 500)
os.kill(os.getpid(), signal.SIGTERM)
""",
        143,
    ),
}


def complete(tmp_path, account):
    numbers = [record["n"] for record in read_metrics(tmp_path / "metrics.jsonl", strict=True)]
    assert numbers == list(range(len(numbers)))
    # One may have been on its way out of write() when a signal came.
    assert len(numbers) - len(account.times) in (0, 1)
    return numbers


@pytest.mark.parametrize("interval", [0.1, 3600])
@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_missing(end, interval, child, tmp_path):
    script, status = ENDS[end]
    process, account = child(HEAD + script, interval)
    out, err = process.communicate()
    assert process.returncode == status, err
    numbers = complete(tmp_path, account)
    assert len(numbers) == 500
    assert [int(line) for line in (tmp_path / "backend").read_bytes().split()] == numbers
    assert out == ""
    assert "vibe_rl" not in err


MANUAL = (Path(__file__).parents[2] / "docs" / "resume.md").read_text()

# In the middle of the write() of step 500.
SIGTERM = """
import os, signal
from vibe_rl.metrics import intake

def encode(row, encode=intake.encode):
    if row["step"] == 500:
        os.kill(os.getpid(), signal.SIGTERM)
    return encode(row)

intake.encode = encode
"""


def test_the_manual_s_script_loses_nothing_at_sigterm(run_python, tmp_path):
    (script,) = re.findall(r"^```python\n([^`]*signal\.SIGTERM[^`]*)^```", MANUAL, re.MULTILINE)
    status, _, err = run_python(SIGTERM + script)
    assert status == 128 + signal.SIGTERM, err
    records = read_metrics(tmp_path / "preempted.jsonl", strict=True)
    assert [record["step"] for record in records] == list(range(501))


SERVICES = """
from vibe_rl.metrics import TensorBoardBackend, WandbBackend

backends = [WandbBackend(mode="offline", project="rl"), TensorBoardBackend("tensorboard")]
logger = MetricsLogger("metrics.jsonl", backends, flush_interval=3600)
for n in range(2_000):
    log(logger, n)
"""


@pytest.mark.parametrize(("end", "status"), [("", 0), ("raise ValueError", 1)])
def test_interpreter_shutdown_with_wandb_and_tensorboard_attached(end, status, child, tmp_path):
    process, account = child(SERVICES + end)
    _, err = process.communicate()
    assert process.returncode == status, err
    numbers = complete(tmp_path, account)
    assert len(numbers) == 2_000
    points = tensorboard_scalars(tmp_path / "tensorboard")["n"]
    assert [value for _, _, value in points] == numbers
    (file,) = wandb_files(tmp_path / "wandb")
    assert [row["n"] for row in wandb_rows(file)] == numbers


@pytest.mark.parametrize("block", ["with logger: ", ""])
def test_after_ctrl_c_nothing_is_missing(block, child, tmp_path):
    go = "threading.Thread(target=lambda: begun.wait() and print('go', flush=True)).start()"
    loop = f"{go}\n{block}run(logger, len(accepted), pause=1e-4)"
    process, account = child(HEAD + loop, 0.1)
    process.stdout.readline()
    threading.Event().wait(0.1)
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate()[1]
    assert process.returncode == -signal.SIGINT
    numbers = complete(tmp_path, account)
    assert len(numbers) > 0
    assert [int(line) for line in (tmp_path / "backend").read_bytes().split()] == numbers


def test_a_second_ctrl_c_ends_the_wait_for_a_backend(child, tmp_path):
    script = """
from vibe_rl.metrics.feed import tickets

class Hung:
    def log(self, record, step=None):
        hung.set()
        time.sleep(1000)
    close = print

hung = threading.Event()
tickets.PATIENCE_S = 1_000_000  # so that nothing else ends the wait
logger = MetricsLogger("metrics.jsonl", [Hung()])
for n in range(1_000):
    log(logger, n)
deliver = logger._feeds.deliver
logger._feeds.deliver = lambda *args, **how: print("waiting", flush=True) or deliver(*args, **how)
hung.wait()
print("hung", flush=True)
time.sleep(1_000)
"""
    process, account = child(script)
    assert process.stdout.readline() == "hung\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "waiting\n"
    for _ in range(150):
        threading.Event().wait(0.2)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGINT)
    assert process.poll() is not None
    assert len(complete(tmp_path, account)) == 1_000


def test_a_second_ctrl_c_ends_the_wait_for_a_device(child, tmp_path):
    script = f"""
sys.path.append({str(Path(__file__).parents[1])!r})
import atexit
import vibe_rl.metrics.logger as module
from under_way import ends_with

def log_held_and_say_so(deadline):
    print("waiting", flush=True)
    return log_held(deadline)

module._LAST_S = 60  # on a busy machine too
never = ends_with(lambda x: time.sleep(1_000))
atexit.register(print, "closed", flush=True)
logger = MetricsLogger("metrics.jsonl", defer=4, flush_interval=3600)
log_held, logger._log_held = logger._log_held, log_held_and_say_so
for n in range(1_000):
    log(logger, n)
logger.write({{"n": 1_000, "x": never(1.0)}})
print("held", flush=True)
time.sleep(1_000)
"""
    process, account = child(script)
    for said in ("held\n", "waiting\n"):
        assert process.stdout.readline() == said
        process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "closed\n"
    assert len(complete(tmp_path, account)) == 1_000


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM"])
def test_a_second_signal_leaves_time_for_what_is_queued(how, child, tmp_path):
    script = """
import vibe_rl.metrics.logger as module

def append(lines):
    begun.set()
    again.wait(60)
    return appends(lines)

def close(timeout):
    if closings:
        again.set()
    closings.append(timeout)
    print("closing", flush=True)
    return closes(timeout)

module._LAST_S = 60  # on a busy machine too
begun, again, closings = threading.Event(), threading.Event(), []
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
logger = MetricsLogger("metrics.jsonl")
appends, logger._writer._append = logger._writer._append, append
closes, logger._writer.close = logger._writer.close, close
log(logger, 0)
begun.wait()
for n in range(1, 1_000):
    log(logger, n)
print("queued", flush=True)
time.sleep(1_000)
"""
    process, account = child(script)
    assert process.stdout.readline() == "queued\n"
    process.send_signal(signal.Signals[how])
    assert process.stdout.readline() == "closing\n"
    process.send_signal(signal.Signals[how])
    process.communicate(timeout=100)
    assert len(complete(tmp_path, account)) == 1_000


WORK = """
import json, sys
from pathlib import Path
from vibe_rl.metrics import MetricsLogger

class Backend:
    exit_code = None

    def __init__(self):
        self.taken = []

    def log(self, record, step=None):
        self.taken.append(record["n"])

    def close(self):
        Path("backend").write_text(json.dumps([self.exit_code, self.taken]))

def work(end):
    logger = MetricsLogger("metrics.jsonl", [Backend()], flush_interval=3600)
    for n in range(1_000):
        logger.write({"n": n})
    exec(end)
"""

PARENT = """
import multiprocessing, sys
from work import work

if __name__ == "__main__":
    try:
        raise KeyError  # which isn't the child's, if it is forked here
    except KeyError:
        context = multiprocessing.get_context(sys.argv[1])
        process = context.Process(target=work, args=(sys.argv[2],))
        process.start()
    process.join()
    sys.exit(process.exitcode)
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("", (0, "exit", None)),
        ("sys.exit()", (0, "exit", None)),
        ("sys.exit(3)", (3, "exit", 3)),
        ("raise SystemExit(3)", (3, "exit", 3)),
        ("raise ValueError", (1, "ValueError", 1)),
        ("logger.close()", (0, "closed", None)),
    ],
)
def test_a_child_of_multiprocessing_is_no_exception(method, end, expected, run_python, tmp_path):
    status, how, exit_code = expected
    if status and sys.version_info >= (3, 13):  # there, the hooks run when the exception is gone
        how, exit_code = "exit", status if method == "spawn" else None
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "parent.py").write_text(PARENT)
    script = "import runpy; runpy.run_path('parent.py', run_name='__main__')"
    ended, _, err = run_python(script, method, end)
    assert ended == status, err
    path = tmp_path / "metrics.jsonl"
    assert [record["n"] for record in read_metrics(path, strict=True)] == list(range(1_000))
    assert json.loads((tmp_path / "backend").read_text()) == [exit_code, list(range(1_000))]
    assert [note.get("how") for note in read_writers(path)] == [None, how]


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_second_signal_there_ends_the_wait_for_one_logger_only(method, python, tmp_path):
    (tmp_path / "work.py").write_text("""
import os, signal, sys, time
from vibe_rl.metrics import MetricsLogger

class Hung:
    def log(self, record, step=None):
        time.sleep(1000)
    close = print

def work(_):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    first = MetricsLogger("first.jsonl", flush_interval=3600)
    second = MetricsLogger("second.jsonl", [Hung()])
    for n in range(1_000):
        first.write({"n": n})
        second.write({"n": n})
    deliver = second._feeds.deliver
    def waiting(*args, **how):
        print(os.getpid(), flush=True)
        return deliver(*args, **how)
    second._feeds.deliver = waiting
""")
    (tmp_path / "parent.py").write_text(PARENT)
    script = "import runpy; runpy.run_path('parent.py', run_name='__main__')"
    process = python(script, method, "")
    os.kill(int(process.stdout.readline()), signal.SIGTERM)
    process.communicate(timeout=100)
    for name in ("first.jsonl", "second.jsonl"):
        numbers = [record["n"] for record in read_metrics(tmp_path / name, strict=True)]
        assert numbers == list(range(1_000))

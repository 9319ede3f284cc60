"""That a backend learns what its process ended with, in real processes."""

import sys

import pytest

from vibe_rl.metrics import MetricsLogger
from vibe_rl.metrics.feed.exit_watch import ExitWatch, exit_watch

SCRIPT = """
import contextlib, os, signal, sys, threading, time
sys.path[:] = sys.argv[2:]
from recorders import Ending
from vibe_rl.metrics import MetricsLogger, isolated

def main():
    logger = MetricsLogger("metrics.jsonl", [Ending("thread"), isolated(Ending, "process")])
    logger.write({"i": 0})
    return 3

def caught():
    with contextlib.suppress(SystemExit):
        sys.exit(3)

result = main()
exec(sys.argv[1])
"""

# By how the script ends: what it ends with, and what the backends are told.
ENDS = {
    "": (0, None),
    "sys.exit()": (0, None),
    "sys.exit(0)": (0, None),
    "sys.exit(result)": (3, 3),
    "sys.exit('no data')": (1, 1),
    "1 / 0": (1, 1),
    "raise KeyboardInterrupt": (-2, 1),
    "import argparse; argparse.ArgumentParser().parse_args(['--unknown'])": (2, 2),
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); os.kill(os.getpid(), 15)": (143, 143),
    "caught()": (0, None),
    "caught(); sys.exit(4)": (4, 4),
    "try: sys.exit(3)\nexcept SystemExit: sys.exit(0)": (0, None),
    "try: sys.exit(0)\nexcept SystemExit: sys.exit(3)": (3, 3),
    "try: sys.exit(3)\nfinally: caught()": (3, 3),
    "threading.Thread(target=sys.exit, args=(3,)).start()": (0, None),
    "import _thread; _thread.start_new_thread(sys.exit, (3,)); time.sleep(0.2)": (0, None),
}


@pytest.mark.parametrize("end", ENDS)
def test_backends_learn_what_the_process_ended_with(tmp_path, run_python, end):
    code, told = ENDS[end]
    assert run_python(SCRIPT, end, *sys.path)[0] == code
    assert (tmp_path / "thread").read_text() == str(told)
    assert (tmp_path / "process").read_text() == str(told)


class Plain:
    def log(self, record, step=None): ...

    def close(self): ...


class Ending(Plain):
    exit_code = None


def test_sys_exit_is_ours_only_while_a_backend_wants_to_know(tmp_path):
    before = sys.exit
    with MetricsLogger(tmp_path / "metrics.jsonl", [Plain()]):
        assert sys.exit is before
    first = MetricsLogger(tmp_path / "1.jsonl", [Ending()])
    ours = sys.exit
    assert ours != before
    second = MetricsLogger(tmp_path / "2.jsonl", [Ending()])
    assert sys.exit == ours  # not twice
    first.close()
    assert sys.exit == ours
    second.close()
    second.close()
    assert sys.exit is before


def test_whoever_comes_after_us_stays_and_is_followed_by_us(monkeypatch):
    calls = []
    monkeypatch.setattr(sys, "exit", lambda status=None: calls.append(status))
    watch = ExitWatch()
    watch.start("first")
    ours = sys.exit
    theirs = lambda status=None: calls.append("theirs") or ours(status)  # noqa: E731
    sys.exit = theirs
    watch.stop("first")
    assert sys.exit is theirs
    watch.start("second")
    assert sys.exit is theirs
    sys.exit(3)
    assert calls == ["theirs", 3]


def test_a_sys_exit_that_is_caught_is_forgotten():
    watched = Ending()
    exit_watch.start(watched)
    with pytest.raises(SystemExit) as caught:
        sys.exit(3)
    assert (type(caught.value), caught.value.code) == (SystemExit, 3)
    del caught
    exit_watch.stop(watched)
    assert exit_watch.code is None


def test_a_signal_handler_may_come_in_between():
    before, watch, other = sys.exit, ExitWatch(), object()

    class User:
        def __hash__(self):
            watch.start(other)  # as a handler that makes a logger would, in the middle of start()
            return id(self)

    user = User()
    watch.start(user)
    watch.stop(user)
    assert sys.exit != before
    watch.stop(other)
    assert sys.exit == before

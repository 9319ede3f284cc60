"""What the tests share: JAX on the CPU, a Python of their own to break, and the size of trials."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import settings

from vibe_rl.metrics.reading import state

# Before anything imports jax.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# The same examples each time, for a red test must mean a change; and no example is timed.
settings.register_profile("ci", deadline=None, derandomize=True, max_examples=100)
settings.register_profile("long", deadline=None, max_examples=5_000)
LONG = os.environ.get("VIBE_RL_LONG", "") not in ("", "0")
settings.load_profile("long" if LONG else "ci")

# A thread waits four times as long for its turn as usual: what a busy machine does now and then.
if os.environ.get("VIBE_RL_STARVED", "") not in ("", "0"):
    sys.setswitchinterval(0.02)


def pytest_configure():
    """Undo that a script's shell or `nohup` has us ignore signals, as tests' processes would too.

    A handler is not inherited by a program that we start: that has the system's default.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.fixture(scope="session")
def scale():
    """Choose how much to try: `scale(few, many)` is `many` if VIBE_RL_LONG=1 is set."""
    return lambda few, many: many if LONG else few


@pytest.fixture
def python(tmp_path):
    """Start a script in a Python process of its own: `python(script, *args, **popen_settings)`.

    The process works in `tmp_path`, its output is piped as text, and it doesn't outlive the test;
    nor do those that it forks, which have its pipes.
    """
    started = []

    def start(script, *args, **settings):
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, args)],
            **{"cwd": tmp_path, "text": True, "process_group": 0, **pipes, **settings},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(OSError):  # all of them have ended
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def run_python(python):
    """Run a script like `python` does, to its end: gives (exit status, stdout, stderr)."""

    def run(script, *args, **settings):
        process = python(script, *args, **settings)
        out, err = process.communicate(timeout=100)
        return process.returncode, out, err

    return run


@pytest.fixture
def between_looks(monkeypatch):
    """Have these happen one by one, each before a follower asks again whether a run has ended."""

    def happen(*events):
        left = [*events]
        files = state.metrics_files

        def asked(path):
            if left:
                left.pop(0)()
            return files(path)

        monkeypatch.setattr(state, "metrics_files", asked)

    return happen

import os
import pty
import re
import subprocess
import sys
import termios
from types import SimpleNamespace

import pyte
import pytest

from vibe_rl.metrics.progress import TrainingProgress

COLUMNS, LINES = 80, 24
STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}"
BAR = r"ppo ━[━╸╺]+ +{step}/{total} +{percent}% (\S+ steps/s )? *\S+ left"

START = """if True:
    import logging, sys, threading, time
    from vibe_rl.metrics.console import setup_logging
    from vibe_rl.metrics.progress import TrainingProgress

    log = logging.getLogger("vibe_rl")
"""


def environment(**variables):
    ours = {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"} | variables
    theirs = ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
    return {name: value for name, value in os.environ.items() if name not in theirs} | ours


def run_in_terminal(code, *, stdout=None, **variables):
    """Run code in a terminal, and return what stands there in the end.

    A real pseudo-terminal, whose output goes through a terminal emulator; `lines` holds what has
    scrolled away as well.
    """
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (LINES, COLUMNS))
    process = subprocess.Popen(
        [sys.executable, "-c", START + code],
        stdin=theirs,
        stdout=theirs if stdout is None else stdout,
        stderr=theirs,
        env=environment(**variables),
    )
    os.close(theirs)
    screen = pyte.HistoryScreen(COLUMNS, LINES, history=10_000)
    stream = pyte.ByteStream(screen)
    while chunk := read(ours):
        stream.feed(chunk)
    os.close(ours)
    scrolled = ["".join(line[x].data for x in range(COLUMNS)) for line in screen.history.top]
    lines = [line.rstrip() for line in (*scrolled, *screen.display)]
    while lines and not lines[-1]:
        lines.pop()
    return SimpleNamespace(
        lines=lines, returncode=process.wait(), cursor_hidden=screen.cursor.hidden
    )


def read(terminal):
    try:
        return os.read(terminal, 65_536)
    except OSError:  # Linux's way to say that nobody has the terminal open any more
        return b""


def bar(step, total, percent):
    return re.compile(BAR.format(step=step, total=total, percent=percent))


def test_it_shows_step_rate_time_left_and_the_newest_metrics():
    result = run_in_terminal("""
    with TrainingProgress(2_000_000, "ppo") as progress:
        progress.update(250_000, {"loss": 0.9})
        time.sleep(0.05)
        progress.update(500_000, {"step": 500_000, "loss": 0.42, "reward": 195.0})
    """)
    line, metrics = result.lines
    assert bar("500,000", "2,000,000", 25).fullmatch(line)
    assert re.search(r"[1-9][\d,]* steps/s \d+:\d\d:\d\d left$", line)
    assert metrics == "loss=0.42 reward=195"
    assert result.returncode == 0
    assert not result.cursor_hidden


def test_what_is_printed_meanwhile_stands_whole_on_lines_of_its_own():
    result = run_in_terminal("""
    setup_logging()

    def talk():
        for i in range(60):
            log.warning("from a thread: [%d] /usr/lib :smile:", i)
            time.sleep(0.01)

    thread = threading.Thread(target=talk)
    with TrainingProgress(60, "ppo") as progress:
        thread.start()
        for i in range(60):
            progress.update(i + 1, {"loss": i})
            log.info("from the loop: %d", i)
            print("printed", i)
            time.sleep(0.01)
        thread.join()
    """)
    *printed, line, metrics = result.lines
    assert bar(60, 60, 100).fullmatch(line)
    assert metrics == "loss=59"
    for pattern in (
        rf"I {STAMP} \[vibe_rl\] from the loop: (\d+)",
        rf"W {STAMP} \[vibe_rl\] from a thread: \[(\d+)\] /usr/lib :smile:",
        r"printed (\d+)",
    ):
        matches = [match for text in printed if (match := re.fullmatch(pattern, text))]
        assert [int(match[1]) for match in matches] == list(range(60))
    assert len(printed) == 180


def test_a_line_longer_than_the_terminal_is_wrapped_by_the_terminal_alone():
    result = run_in_terminal("""
    setup_logging()
    with TrainingProgress(1, "ppo") as progress:
        log.info("word " * 40 + "end")
    """)
    text = "".join(line.ljust(COLUMNS) for line in result.lines[:-1])
    assert re.fullmatch(rf"I {STAMP} \[vibe_rl\] (word ){{40}}end", text.rstrip())


def test_more_metrics_than_fit_take_a_further_line():
    result = run_in_terminal("""
    with TrainingProgress(1, "ppo") as progress:
        for i in range(3):
            progress.update(1, {f"metric_{n}": i + 0.125 for n in range(9)})
            time.sleep(0.3)
    """)
    line, *metrics = result.lines
    assert bar(1, 1, 100).fullmatch(line)
    assert " ".join(metrics).split() == [f"metric_{n}=2.125" for n in range(9)]


def test_an_exception_ends_the_bar_and_is_seen_whole():
    result = run_in_terminal("""
    with TrainingProgress(10, "ppo") as progress:
        progress.update(3, {"loss": 1.0})
        raise RuntimeError("diverged")
    """)
    assert bar(3, 10, 30).fullmatch(result.lines[0])
    assert result.lines[1:3] == ["loss=1", "Traceback (most recent call last):"]
    assert result.lines[-1] == "RuntimeError: diverged"
    assert not result.cursor_hidden


def test_a_stdout_that_is_piped_keeps_what_is_printed_to_it(tmp_path):
    with (tmp_path / "out").open("w") as out:
        result = run_in_terminal(
            """
    with TrainingProgress(1, "ppo") as progress:
        print("printed")
        progress.update(1)
    """,
            stdout=out,
        )
    assert (tmp_path / "out").read_text() == "printed\n"
    assert bar(1, 1, 100).fullmatch(result.lines[0])
    assert len(result.lines) == 1


def test_a_run_of_no_steps_divides_by_nothing():
    result = run_in_terminal("""
    with TrainingProgress(0, "ppo") as progress:
        progress.update(0)
        progress.update(5)
    """)
    assert result.returncode == 0
    assert "5/0" in result.lines[0]


def test_a_terminal_that_moves_no_cursor_gets_no_bar():
    code = """
    with TrainingProgress(10, "ppo") as progress:
        progress.update(5)
    """
    assert run_in_terminal(code, TERM="dumb").lines == []


def test_without_rich_the_error_names_the_extra():
    result = run_in_terminal("""
    sys.modules["rich"] = None
    with TrainingProgress(10):
        pass
    """)
    message = "the progress bar needs rich: pip install 'vibe-rl[train]'"
    assert result.lines[-1] == f"ImportError: {message}"


def run_piped(code):
    return subprocess.run(
        [sys.executable, "-c", START + code],
        capture_output=True,
        text=True,
        check=True,
        env=environment(FORCE_COLOR="1"),
    )


def test_off_a_terminal_nothing_is_drawn():
    result = run_piped("""
    with TrainingProgress(1000, "ppo") as progress:
        for step in range(0, 1001, 10):
            progress.update(step, {"loss": 0.42})
        print("printed")
    assert "rich" not in sys.modules
    """)
    assert (result.stdout, result.stderr) == ("printed\n", "")


def test_off_a_terminal_a_line_is_logged_for_each_twentieth():
    result = run_piped("""
    setup_logging()
    with TrainingProgress(1000, "ppo") as progress:
        for step in range(0, 1001, 10):
            progress.update(step, {"loss": 0.42})
    """)
    lines = result.stderr.splitlines()
    steps = [int(re.search(r"\] step (\d+)/1000 \(.*%\) \| loss=0.42$", line)[1]) for line in lines]
    assert steps == list(range(50, 1001, 50))


def test_off_a_terminal_a_run_of_no_steps_divides_by_nothing():
    with TrainingProgress(0) as progress:
        progress.update(5)


def test_a_negative_number_of_steps_is_refused():
    with pytest.raises(ValueError, match="got -1"):
        TrainingProgress(-1)

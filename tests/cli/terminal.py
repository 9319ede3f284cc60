"""A command in a real pseudo-terminal, whose output goes through a terminal emulator."""

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time

import pyte

COLUMNS, LINES = 80, 24
_MAIN = "import sys; from vibe_rl.cli import main; sys.exit(main())"


class Terminal:
    """`vibe-rl ARGS` in a terminal of 80 columns and 24 lines.

    Args:
        args: What follows the command's name.
        cwd: Where it runs.
        before: Python to run before it.
    """

    def __init__(self, *args, cwd, before=""):
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (LINES, COLUMNS))
        unwanted = ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "COLORTERM")
        env = {name: value for name, value in os.environ.items() if name not in unwanted}
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"{before}\n{_MAIN}", *args],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=cwd,
            env=env | {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"},
            start_new_session=True,
        )
        os.close(theirs)
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self._screen)

    def text(self):
        """What stands on the screen."""
        return "\n".join(line.rstrip() for line in self._screen.display)

    def wait_for(self, *texts, seconds=60):
        """Read until all these texts stand on the screen; gives what stands there."""
        deadline = time.monotonic() + seconds
        while not all(text in self.text() for text in texts):
            assert time.monotonic() < deadline, f"no {texts} in:\n{self.text()}"
            if not self._read():
                assert all(text in self.text() for text in texts), self.text()
        return self.text()

    def press(self, keys):
        """Type."""
        os.write(self._ours, keys.encode())

    def signal(self, signum):
        """Send a signal to the command."""
        self._process.send_signal(signum)

    def end(self):
        """Read to the end; gives the exit code."""
        while self._read():
            pass
        return self._process.wait(timeout=60)

    def kill(self):
        """End it in any case."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        os.close(self._ours)

    def _read(self):
        """Read what there is; False once the command has let go of the terminal."""
        if not select.select([self._ours], [], [], 0.2)[0]:
            return True
        try:
            data = os.read(self._ours, 65_536)
        except OSError:  # Linux's way to say that nobody has the terminal open any more
            return False
        self._stream.feed(data)
        return bool(data)

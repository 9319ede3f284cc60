"""Backends that tests look into; here, because a process of its own must be able to import them."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from vibe_rl.metrics import WandbBackend
from vibe_rl.metrics.feed import tickets


class FileBackend:
    """Writes each record's `i` to a file: at once, or, if it `holds`, when it is flushed."""

    def __init__(self, path, *, holds=False, identity=None):
        self.path = Path(path)
        self._file = self.path.open("a", buffering=1 << 20)
        self._holds = holds
        if identity:
            self.identity = identity

    @property
    def run_id(self):
        return f"run {self.path.name}"

    @property
    def pid(self):
        return os.getpid()

    def log(self, record, step=None):
        self._file.write(f"{record['i']}\n")
        if not self._holds:
            self._file.flush()

    def flush(self):
        self._file.flush()

    def close(self):
        self._file.close()
        self.path.with_suffix(".closed").touch()


class Named(FileBackend):
    """Says what it is to be called."""

    name = "named"


class Unflushed(FileBackend):
    """Has no `flush()`; what it holds back, it lets go after a tenth of a second."""

    flush = None
    _let_go = 0.0

    def log(self, record, step=None):
        super().log(record, step)
        if time.monotonic() > self._let_go + 0.1:
            self._let_go = time.monotonic()
            self._file.flush()


class Ending:
    """Writes to a file what it is told about the end of the run."""

    def __init__(self, path):
        self._path = Path(path)
        self.exit_code = None

    def log(self, record, step=None): ...

    def close(self):
        self._path.write_text(str(self.exit_code))


class Unflushable:
    """Has no `flush()` at all."""

    def __init__(self, path): ...

    def log(self, record, step=None): ...

    def close(self): ...


class Slow(FileBackend):
    """Takes its time for each record."""

    def __init__(self, path, seconds, **settings):
        super().__init__(path, **settings)
        self._seconds = seconds

    def log(self, record, step=None):
        time.sleep(self._seconds)
        super().log(record, step)


class Refusing:
    """Can't be built."""

    def __init__(self, reason):
        raise LookupError(reason)

    def log(self, record, step=None): ...

    def close(self): ...


class Unpicklable(Refusing):
    """Can't be built, with an error that can't be sent."""

    def __init__(self):
        raise _LockedError(threading.Lock())


class _LockedError(Exception):
    pass


class Dying(FileBackend):
    """Takes its process with it at one record; if `marker` is given, only once."""

    def __init__(self, path, at, marker=None):
        super().__init__(path)
        self._at = at
        self._marker = marker and Path(marker)

    def log(self, record, step=None):
        if record["i"] == self._at and not (self._marker and self._marker.exists()):
            if self._marker:
                self._marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        super().log(record, step)


class DyingInClose(FileBackend):
    """Ends its process when it is closed."""

    def close(self):
        os._exit(3)


class Hanging(FileBackend):
    """Never returns from its first record; `patience` replaces the 30 s of its process."""

    def __init__(self, path, patience=None):
        super().__init__(path)
        if patience is not None:
            tickets.PATIENCE_S = patience

    def log(self, record, step=None):
        threading.Event().wait()


class Echo(FileBackend):
    """Says what it was given."""

    def __init__(self, path, given):
        super().__init__(path)
        self.given = repr(given)
        self.has_jax = "jax" in sys.modules


class Complaining(FileBackend):
    """Raises for one record, always."""

    def __init__(self, path, at):
        super().__init__(path)
        self._at = at

    def log(self, record, step=None):
        if record["i"] == self._at:
            raise ZeroDivisionError(record["i"])
        super().log(record, step)


class Raising:
    """Takes no record; `patience` replaces the 30 s of its process."""

    def __init__(self, patience):
        tickets.PATIENCE_S = patience

    def log(self, record, step=None):
        raise ConnectionError("the service is down")

    def close(self): ...


class WatchingBackend(WandbBackend):
    """Says whose use of the machine W&B logs."""

    @property
    def watched(self):
        return self._run.settings.x_stats_pid


class Incomplete:
    """Has no close()."""

    def log(self, record, step=None): ...


def make_incomplete():
    return Incomplete()


class Uncallable(FileBackend):
    """Has a close that can't be called."""

    close = True


def make_uncallable():
    return Uncallable(os.devnull)


class Unidentified(FileBackend):
    """Can't say who it is."""

    @property
    def identity(self):
        raise ValueError("no identity yet")


class Lingering(FileBackend):
    """Leaves a thread behind."""

    def __init__(self, path):
        super().__init__(path)
        threading.Thread(target=threading.Event().wait).start()


class Costly(FileBackend):
    """Ends its process if somebody reads a property."""

    unit = "s"

    @property
    def costly(self):
        sys.exit("who has read it?")


def taken(path):
    """The records that a `FileBackend` has written."""
    return [int(line) for line in Path(path).read_text().split()]


def is_complete(numbers, expected, *, repeats):
    """Whether all that is expected came, in order; the last `repeats` may have come again."""
    place = {number: k for k, number in enumerate(expected)}
    reached = 0
    for number in numbers:
        if not reached - repeats <= place[number] <= reached:
            return False
        reached = max(reached, place[number] + 1)
    return reached == len(expected)


def offline_run(run_dir):
    return WandbBackend(run_dir=run_dir, mode="offline")

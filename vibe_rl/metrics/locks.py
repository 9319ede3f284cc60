"""Advisory locks on the files of a run: taken and given back."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import time

# How long an opener waits for another one that is repairing the file.
_PATIENCE_S = 5.0


def lock(fd: int) -> bool:
    """Lock the file: exclusively (True) if nobody else has it open, else shared (False)."""
    deadline = time.monotonic() + _PATIENCE_S
    how = fcntl.LOCK_EX
    while True:
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return False  # locks don't work on this file system: cut nothing
            if how == fcntl.LOCK_SH:  # another opener is at its repair
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.01)
            how = fcntl.LOCK_SH
        else:
            return how == fcntl.LOCK_EX


def unlock(fd: int) -> None:
    """Give a lock back before its descriptor is closed.

    Closing alone would leave it to a child that was forked meanwhile, which has the descriptor too.
    """
    with contextlib.suppress(OSError):  # locks don't work on this file system
        fcntl.flock(fd, fcntl.LOCK_UN)

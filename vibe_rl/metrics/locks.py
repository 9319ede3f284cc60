"""Advisory locks on the files of a run: taken and given back."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from pathlib import Path

# How long an opener waits for another one that is repairing the file.
_PATIENCE_S = 5.0


def open_locked(path: Path, flags: int) -> tuple[int, int]:
    """Open a file and lock it.

    Another one may take its name while this waits for the lock: then that one is opened.

    Returns:
        Its descriptor, and how it is locked: see `lock`.

    Raises:
        OSError: If it can't be opened.
    """
    while True:
        fd = os.open(path, flags | os.O_CLOEXEC, 0o666)
        try:
            how = lock(fd)
            if has_name(fd, path):
                return fd, how
        except BaseException:
            release(fd)
            raise
        release(fd)


def lock(fd: int) -> int:
    """Lock an open file.

    Returns:
        `LOCK_EX` if nobody else has it open, else `LOCK_SH`; `LOCK_UN` if another one keeps it for
        long, or locks don't work on this file system.
    """
    deadline = time.monotonic() + _PATIENCE_S
    how = fcntl.LOCK_EX
    while True:
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return fcntl.LOCK_UN
            if how == fcntl.LOCK_SH:  # another opener is at its repair
                if time.monotonic() > deadline:
                    return fcntl.LOCK_UN
                time.sleep(0.01)
            how = fcntl.LOCK_SH
        else:
            return how


def share(fd: int) -> bool:
    """Take or keep a shared lock, without waiting; False if that can't be had."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_locked(fd: int) -> bool:
    """Whether somebody else has an open file locked, or locks don't work on this file system.

    If nobody has, this takes the lock for a moment.
    """
    try:
        return not _can_be_locked(fd)
    except OSError as error:
        if error.errno != errno.EBADF:
            return True
    # NFS gives an exclusive lock only to a descriptor that may write.
    try:
        writable = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        return not _can_be_locked(writable)
    except OSError:
        return True
    finally:
        os.close(writable)


def _can_be_locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    unlock(fd)
    return True


def unlock(fd: int) -> None:
    """Give a lock back before its descriptor is closed.

    Closing alone would leave it to a child that was forked meanwhile, which has the descriptor too.
    """
    with contextlib.suppress(OSError):  # locks don't work on this file system
        fcntl.flock(fd, fcntl.LOCK_UN)


def release(fd: int) -> None:
    """Give a lock back, and close its descriptor."""
    unlock(fd)
    os.close(fd)


def has_name(fd: int, path: Path) -> bool:
    """Whether an open file is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return False
        raise

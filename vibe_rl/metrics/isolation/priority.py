"""Working only when nobody else wants the processor."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

_LOWEST_NICE = 19
# The kernel takes one change of an autogroup each 0.1 s from a user, and EAGAIN says so.
_AUTOGROUP_TRIES = 10
_AUTOGROUP_PAUSE_S = 0.11


def yield_to_others(session: int) -> None:
    """Give this process, and those that it has started, the lowest priority the system offers.

    On Linux, `SCHED_IDLE` counts only among the processes of one session where the kernel groups
    them by session (autogroup): a session of its own would get a full share beside the trainer's.
    So the group's own weight is lowered too.

    Args:
        session: Processes of this session are left as they are: it is the trainer's.
    """
    if sys.platform.startswith("linux"):
        _set_all(session, os.SCHED_IDLE, _LOWEST_NICE)
    else:
        os.nice(_LOWEST_NICE)


def stop_yielding(session: int) -> None:
    """Undo `yield_to_others`, as far as the system lets a user do so."""
    if sys.platform.startswith("linux"):
        _set_all(session, os.SCHED_OTHER, 0)


def _set_all(session: int, policy: int, nice: int) -> None:
    for pid in (os.getpid(), *_descendants(os.getpid())):
        # A process may end meanwhile.
        with contextlib.suppress(OSError):
            if os.getsid(pid) != session:
                _set_autogroup(pid, nice)
                for task in Path(f"/proc/{pid}/task").iterdir():
                    # Each for itself: a user may be allowed the one, but not the other.
                    with contextlib.suppress(OSError):
                        os.sched_setscheduler(int(task.name), policy, os.sched_param(0))
                    with contextlib.suppress(OSError):
                        os.setpriority(os.PRIO_PROCESS, int(task.name), nice)


def _set_autogroup(pid: int, nice: int) -> None:
    for _ in range(_AUTOGROUP_TRIES):
        try:
            Path(f"/proc/{pid}/autogroup").write_bytes(b"%d" % nice)
        except BlockingIOError:
            time.sleep(_AUTOGROUP_PAUSE_S)
        except OSError:
            return  # there are no autogroups here
        else:
            return


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # After the name, which is in brackets and may hold anything: state, parent.
            parent = int(entry.read_bytes().rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    found = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found

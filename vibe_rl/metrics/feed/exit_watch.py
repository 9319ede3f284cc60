"""What ends the process, for backends that note how a run went."""

from __future__ import annotations

import sys
import threading
from typing import NoReturn


class ExitWatch:
    """Stands in for `sys.exit` while somebody wants to know which call of it ends the process.

    Python tells exit hooks nothing, so this is the one place where the code goes by. (W&B does the
    same for its own runs.) `raise SystemExit(3)` does not come here.

    Attributes:
        code: What `sys.exit` has ended the process with: 0 is well. None if nothing is known of it.
    """

    def __init__(self) -> None:
        self.code: int | None = None
        self._users: set[object] = set()
        self._is_in_place = False
        self._changing = threading.RLock()  # a signal handler may come in between

    def start(self, user: object) -> None:
        """Watch until this user stops it."""
        with self._changing:
            self._users.add(user)
            if not self._is_in_place:
                self._is_in_place = True
                self._exit_before = sys.exit
                sys.exit = self._exit

    def stop(self, user: object) -> None:
        """Put back what was there, if this was the last user, and nobody has come after us."""
        with self._changing:
            self._users.discard(user)
            if not self._users and sys.exit == self._exit:
                self._is_in_place = False
                sys.exit = self._exit_before

    def note(self, status: object) -> None:
        """Say what has ended the process: the argument of `sys.exit`."""
        self.code = status if isinstance(status, int) else int(status is not None)

    def _exit(self, status: str | int | None = None, /) -> NoReturn:
        try:
            self._exit_before(status)
        except SystemExit as error:
            if threading.current_thread() is threading.main_thread():
                vars(error)[_LastWords.__name__] = _LastWords(status)
            raise


class _LastWords:
    """Goes with a `SystemExit`, and learns whether that has ended the process or was caught."""

    def __init__(self, status: object) -> None:
        self._status = status

    def __del__(self) -> None:
        # Only the interpreter itself lets go of an exception where no Python code is below.
        below = sys._getframe().f_back  # noqa: SLF001 - what inspect.currentframe() would give
        if below is None and exit_watch.code is None:
            exit_watch.note(self._status)


# One for the process, as `sys.exit` is.
exit_watch = ExitWatch()

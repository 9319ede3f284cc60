"""What is called when the process ends by itself, be it a child of `multiprocessing` or not."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable


def call_at_exit(hook: Callable[[], object]) -> Callable[[], None]:
    """Have this called at the end of the process; gives what takes that back.

    Hooks are called in reverse order, while the exception that ends the process, if it is a child
    of `multiprocessing`, is `sys.exception()`.
    """
    atexit.register(hook)
    # With fork and forkserver, such a child ends by os._exit(), and calls none but its own hooks.
    final = None
    if (process := sys.modules.get("multiprocessing.process")) and process.parent_process():
        from multiprocessing.util import Finalize  # noqa: PLC0415 - such a child has it already

        final = Finalize(None, hook, exitpriority=0)

    def take_back() -> None:
        atexit.unregister(hook)
        if final is not None:
            final.cancel()

    return take_back

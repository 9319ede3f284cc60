"""What is called when the process ends by itself, be it a child of `multiprocessing` or not."""

from __future__ import annotations

import atexit
import functools
import sys
import traceback
from collections.abc import Callable

Hook = Callable[[BaseException | None], object]
"""Called with the exception that ends the process, where that is known."""


def call_at_exit(hook: Hook) -> Callable[[], None]:
    """Have this called at the end of the process; gives what takes that back.

    Hooks are called in reverse order. Python tells them of no exception, except in a child of
    `multiprocessing`, before Python 3.13.
    """
    plain = atexit.register(functools.partial(hook, None))
    # With fork and forkserver, before Python 3.13, such a child ends by os._exit(), and calls none
    # but its own hooks.
    final = None
    if (process := sys.modules.get("multiprocessing.process")) and process.parent_process():
        from multiprocessing.util import Finalize  # noqa: PLC0415 - such a child has it already

        final = Finalize(None, _call_in_child, (hook,), exitpriority=0)

    def take_back() -> None:
        atexit.unregister(plain)
        if final is not None:
            final.cancel()

    return take_back


def _call_in_child(hook: Hook) -> None:
    from multiprocessing.process import BaseProcess  # noqa: PLC0415 - as above

    error = sys.exception()
    # Forked within an `except`, it sees the exception that its parent is handling there.
    has_ended_it = (
        error is not None
        and error.__traceback__ is not None
        and error.__traceback__.tb_frame.f_code is BaseProcess._bootstrap.__code__  # type: ignore[attr-defined] # noqa: SLF001
    )
    try:
        hook(error if has_ended_it else None)
    except BaseException:  # noqa: BLE001 - Ctrl-C must not keep it from the hooks that follow
        traceback.print_exc()

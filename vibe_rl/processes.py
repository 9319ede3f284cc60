"""The processes of a multi-process JAX job: which one this is, and agreeing with the others."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

# How long a process waits for what the first one decides.
PATIENCE_S = 120.0

_agreed: Counter[str] = Counter()
_stands_in_for = 0


def process_index() -> int:
    """This process's number in the job that `jax.distributed.initialize()` has joined.

    Without a job 0, or what `stand_in_for` has said.
    """
    state = _state()
    return _stands_in_for if state is None else int(state.process_id)


def stand_in_for(index: int) -> None:
    """Have `process_index()` give this number in a process that joins no job.

    That is an isolated backend's, which works for the process of that number in its parent's job.
    """
    global _stands_in_for  # noqa: PLW0603 - what the process is, as long as it lives
    _stands_in_for = index


def process_count() -> int:
    """How many processes the job has; 1 without one."""
    state = _state()
    return 1 if state is None else int(state.num_processes)


def agree(question: str, decide: Callable[[], str], timeout: float = PATIENCE_S) -> str:
    """Let the first process decide something for all; without a job, that is this one.

    Args:
        question: What it is about. Processes that ask the same question repeatedly get the answers
            in the same order.
        decide: Called on the first process; what it returns is the answer on all.
        timeout: The most seconds that the others wait for it.

    Returns:
        The answer.

    Raises:
        TimeoutError: If the first process does not decide in time.
    """
    state = _state()
    if state is None:
        return decide()
    _agreed[question] += 1
    key = f"vibe_rl/{question}/{_agreed[question]}"
    if state.process_id == 0:
        answer = decide()
        state.client.key_value_set(key, answer)
        return answer
    try:
        return str(state.client.blocking_key_value_get(key, round(1000 * timeout)))
    except RuntimeError as error:
        if "DEADLINE_EXCEEDED" not in str(error):
            raise
        raise TimeoutError(
            f"process {state.process_id} has waited {timeout:g} s for process 0 to decide on "
            f"{question}: every process of the job must ask for it, in the same order"
        ) from error


def _state() -> Any:
    """JAX's state of a job that this process has joined, or None.

    Private, because the public `jax.process_index()` initialises JAX's backends, which may grab
    the accelerator, and `jax.distributed` itself doesn't tell.
    """
    distributed = sys.modules.get("jax._src.distributed")
    state = getattr(distributed, "global_state", None)
    return None if state is None or state.client is None else state

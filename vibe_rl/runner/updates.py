"""Repeating updates in compiled code."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

State = TypeVar("State")
Means = TypeVar("Means")


def repeat(
    update: Callable[[State], tuple[State, Means]], state: State, num_updates: jax.Array
) -> tuple[State, Means]:
    """Update so many times, and average what the updates measure.

    The number may be traced, so that one compilation serves log intervals of any length.

    Args:
        update: Gives the next state, and a pytree of float32 arrays.
        state: The first state.
        num_updates: int32 scalar, at least 1.

    Returns:
        The last state, and the mean of what the updates gave.
    """
    update = jax.jit(update)  # traced once, for its shapes and in the loop

    def add(_: jax.Array, carry: tuple[State, Means]) -> tuple[State, Means]:
        state, sums = carry
        state, values = update(state)
        return state, jax.tree.map(jnp.add, sums, values)

    _, values = jax.eval_shape(update, state)
    zeros = jax.tree.map(lambda value: jnp.zeros(value.shape, value.dtype), values)
    state, sums = jax.lax.fori_loop(0, num_updates, add, (state, zeros))
    return state, jax.tree.map(lambda total: total / num_updates, sums)

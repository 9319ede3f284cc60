"""Experience replay: steps that were taken, kept on the device to be learned from again."""

from typing import NamedTuple

import flashbax
import jax
from flashbax.buffers.trajectory_buffer import TrajectoryBuffer


class Transition(NamedTuple):
    """Steps that an agent took; all fields have the same leading axes.

    Attributes:
        obs: float32 `(..., obs_size)`; what was acted on.
        action: int32 `(...)`, or float32 `(..., action_size)`.
        reward: float32 `(...)`.
        next_obs: float32 `(..., obs_size)`; what the action led to. Where the episode ended this
            is its last observation, not the first of the episode that follows.
        terminated: bool `(...)`; the episode came to its own end. An episode cut off by its time
            limit did not: what `next_obs` is worth counts, since the task would have gone on.
    """

    obs: jax.Array
    action: jax.Array
    reward: jax.Array
    next_obs: jax.Array
    terminated: jax.Array


def make_replay(size: int, batch_size: int) -> TrajectoryBuffer:
    """A ring of the latest `size` steps, from which batches are drawn uniformly.

    Args:
        size: How many steps it keeps.
        batch_size: How many it gives at once.

    Returns:
        Three functions: `init(transition)` gives the state that holds nothing, for steps like the
        given one; `add(state, transitions)` takes in transitions with two leading axes, in their
        order; `sample(state, key).experience` draws transitions with one leading axis.
    """
    return flashbax.make_item_buffer(
        size, min_length=1, sample_batch_size=batch_size, add_sequences=True, add_batches=True
    )

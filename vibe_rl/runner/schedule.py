"""When a run does what: which log intervals are trained in one go, and what follows on the host."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vibe_rl.runner.config import TrainConfig

# As many log intervals train in one go at most: Ctrl-C is heard between two stretches.
_MOST_INTERVALS = 100


class Stretch(NamedTuple):
    """The log intervals from one stop of the compiled code to the next.

    Attributes:
        num_updates: int32 `(num_intervals,)`; the updates in each log interval.
        step: uint32 `(num_intervals,)`; the environment steps of the whole run at its end.
        done: Updates of the whole run after this stretch.
        evaluate: Whether an evaluation follows.
        save: Whether a checkpoint follows.
    """

    num_updates: np.ndarray
    step: np.ndarray
    done: int
    evaluate: bool
    save: bool


def plan(config: TrainConfig, done: int, *, stop_at_records: bool) -> Iterator[Stretch]:
    """Divide what is left of a run into stretches of equally many log intervals.

    All take the same compiled code; only the run's last interval may have fewer updates than the
    others, and the first one after a run that is extended.

    Args:
        config: The settings.
        done: Updates that the run has behind it.
        stop_at_records: Whether the host has something to do after each log interval.

    Yields:
        The stretches, in order; none if the run is complete.
    """
    size, end = config.updates_per_record, config.num_updates
    evaluate_every, save_every = (
        math.ceil(interval / (size * config.steps_per_update))
        for interval in (config.eval_interval, config.checkpoint_interval)
    )
    first, last = done // size, math.ceil(end / size)  # log intervals begun, and in the whole run
    common = math.gcd(last - first, first, evaluate_every, save_every)
    most = 1 if stop_at_records else _MOST_INTERVALS
    length = max(each for each in range(1, most + 1) if common % each == 0)
    while done < end:
        ends = np.minimum(np.arange(first + 1, first + length + 1) * size, end)
        first += length
        is_last = first == last
        yield Stretch(
            np.diff(ends, prepend=done).astype(np.int32),
            (ends * config.steps_per_update).astype(np.uint32),
            int(ends[-1]),
            evaluate=evaluate_every > 0 and (first % evaluate_every == 0 or is_last),
            save=save_every > 0 and (first % save_every == 0 or is_last),
        )
        done = int(ends[-1])

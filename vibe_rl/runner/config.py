"""What every training run is told, whatever the algorithm; and the checks of settings.

Nothing here imports JAX, so that a command line can show every option at once.
"""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, Literal, get_args

Activation = Literal["tanh", "relu"]

MOST_STEPS = 2**32 - 1
"""Environment steps of a run at most: they are counted in a uint32."""

MOST_INT = 2**31 - 1
"""The most that compiled code takes as a plain integer."""

_MOST_SEEDS = 1_000_000  # more than any machine trains side by side, and far from the seeds' end

_MOST_FLOAT = 3.4028234e38  # of float32, which all algorithms compute with


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings that all algorithms share; each algorithm adds its own in a subclass.

    Immutable and hashable: `dataclasses.replace(config, seed=1)` makes a variant. Values are
    checked when a config is made.

    A run is made of updates, each of which takes `steps_per_update` environment steps. Intervals
    are rounded up: that of the log to whole updates, the others to whole log intervals.
    """

    env_id: str = "CartPole-v1"
    """Environment, by its gymnax id."""

    total_timesteps: int = 500_000
    """Environment steps to train for, over all environments. Rounded up to a whole update."""

    seed: int = 0
    """Where all randomness starts: the same config gives the same run."""

    num_seeds: int = 1
    """Runs trained side by side, with the seeds from `seed` on; each logs records of its own."""

    log_interval: int = 10_000
    """Environment steps from one metrics record to the next. The last one may be shorter."""

    eval_interval: int = 50_000
    """Environment steps from one evaluation to the next; there is one at the end too. 0: none."""

    eval_episodes: int = 10
    """Episodes in an evaluation, in environments of their own, without exploration."""

    checkpoint_interval: int = 100_000
    """Environment steps from one checkpoint to the next; there is one at the end too. 0: none."""

    keep_checkpoints: int = 3
    """How many of the latest checkpoints stay; the one with the best evaluation always does."""

    num_envs: int = 8
    """Environments stepped side by side."""

    num_steps: int = 1
    """Steps in each environment before an update, so that one sees num_envs * num_steps."""

    learning_rate: float = 1e-3
    """Adam's step size; the first one, if it is annealed."""

    gamma: float = 0.99
    """Discount factor of future rewards, for each step."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Units of each hidden layer, in every network."""

    activation: Activation = "relu"
    """Nonlinearity of the hidden layers."""

    def __post_init__(self) -> None:
        if not isinstance(self.env_id, str):
            raise TypeError(f"env_id must be a string, not {self.env_id!r}")
        for field in fields(self):
            if field.type is bool and not isinstance(getattr(self, field.name), bool):
                raise ValueError(
                    f"{field.name} must be True or False, not {getattr(self, field.name)!r}"
                )
        check_int("total_timesteps", self.total_timesteps, least=1, most=MOST_STEPS)
        check_int("num_seeds", self.num_seeds, least=1, most=_MOST_SEEDS)
        for name in (
            "log_interval",
            "eval_episodes",
            "keep_checkpoints",
            "num_envs",
            "num_steps",
        ):
            check_int(name, getattr(self, name), least=1)
        for name in ("eval_interval", "checkpoint_interval"):
            check_int(name, getattr(self, name), least=0)
        if self.num_updates * self.steps_per_update > MOST_STEPS:
            raise ValueError(
                f"total_timesteps = {self.total_timesteps}, rounded up to whole updates of"
                f" {self.steps_per_update} steps, must be at most {MOST_STEPS}"
            )
        check_int("seed", self.seed, least=0, most=2**32 - self.num_seeds)  # a random key's range
        check_float("learning_rate", self.learning_rate, above=0.0)
        check_float("gamma", self.gamma, least=0.0, most=1.0)
        # A config read back from JSON has a list here, which has no hash.
        object.__setattr__(self, "hidden_sizes", check_sizes("hidden_sizes", self.hidden_sizes))
        check_choice("activation", self.activation, Activation)

    @property
    def steps_per_update(self) -> int:
        """Environment steps, over all environments, that one update takes."""
        return self.num_envs * self.num_steps

    @property
    def num_updates(self) -> int:
        """Updates in the whole run."""
        return math.ceil(self.total_timesteps / self.steps_per_update)

    @property
    def updates_per_record(self) -> int:
        """Updates from one metrics record to the next, of which the last may have fewer."""
        return min(math.ceil(self.log_interval / self.steps_per_update), self.num_updates)

    @property
    def can_be_extended(self) -> bool:
        """Whether more `total_timesteps` leave a run's first part as it was."""
        return True


def check_int(name: str, value: Any, *, least: int, most: float = math.inf) -> None:
    """Raise a ValueError that names the setting unless it is an integer within the bounds."""
    try:
        ok = least <= operator.index(value) <= most and not isinstance(value, bool)
    except TypeError:
        ok = False
    if not ok:
        bounds = f"at least {least}" if most == math.inf else f"{least} to {most}"
        raise ValueError(f"{name} must be an integer of {bounds}, not {value!r}")


def check_float(
    name: str,
    value: Any,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
) -> None:
    """Raise a ValueError that names the setting unless it is a number within the bounds."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not (is_number and abs(value) <= _MOST_FLOAT):  # NaN isn't either
        raise ValueError(f"{name} must be a finite number, not {value!r}")
    number = float(value)
    if not number > above:
        raise ValueError(f"{name} must be greater than {above}, not {value!r}")
    if not least <= number <= most:
        bounds = f"at least {least}" if most == math.inf else f"between {least} and {most}"
        raise ValueError(f"{name} must be {bounds}, not {value!r}")


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Raise a ValueError that names the setting unless it is one of a Literal's values."""
    if value not in get_args(choices):
        known = " or ".join(map(repr, get_args(choices)))
        raise ValueError(f"{name} must be {known}, not {value!r}")


def check_sizes(name: str, value: Any) -> tuple[int, ...]:
    """Give layer sizes as a tuple; raise an error that names the setting if they are none."""
    if not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a tuple of integers, not {value!r}")
    for size in value:
        check_int(f"each of {name}", size, least=1)
    return tuple(value)

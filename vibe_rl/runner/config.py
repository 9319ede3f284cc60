"""What a training run is told: one frozen dataclass for each algorithm.

Nothing here imports JAX, so that a command line can show every option at once.
"""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, get_args

Activation = Literal["tanh", "relu"]

_COUNTS = (
    "total_timesteps",
    "log_interval",
    "num_envs",
    "num_steps",
    "update_epochs",
    "num_minibatches",
)


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """Settings of `train_ppo`; the defaults solve CartPole-v1.

    Immutable and hashable: `dataclasses.replace(config, seed=1)` makes a variant. Values are
    checked when a config is made.

    Raises:
        ValueError: If a value is out of its range; the message names the field and the value.

    Example:
        >>> config = PPOConfig(env_id="Acrobot-v1", total_timesteps=200_000)
        >>> config.num_records, config.steps_per_record
        (20, 10000)
    """

    env_id: str = "CartPole-v1"
    """Environment, by its gymnax id. Its actions must be discrete."""

    total_timesteps: int = 500_000
    """Environment steps to train for, over all environments.
    Rounded up to a whole number of log intervals."""

    seed: int = 0
    """Where all randomness starts: the same config gives the same run."""

    log_interval: int = 10_000
    """Environment steps from one metrics record to the next.
    Rounded up to whole updates, and no longer than the run."""

    num_envs: int = 8
    """Environments stepped side by side."""

    num_steps: int = 125
    """Steps in each environment before an update, so that an update sees num_envs * num_steps."""

    update_epochs: int = 4
    """Passes over the collected steps in one update."""

    num_minibatches: int = 4
    """Gradient steps in one pass, each on its share of the collected steps."""

    learning_rate: float = 2.5e-3
    """Adam's step size; the first one, if it is annealed."""

    anneal_learning_rate: bool = True
    """Whether the step size falls linearly to zero over the run."""

    gamma: float = 0.99
    """Discount factor of future rewards, for each step."""

    gae_lambda: float = 0.95
    """Weight of long returns in the advantages: 0 relies on the critic, 1 on observed rewards."""

    clip_epsilon: float = 0.2
    """How far the new policy's probability ratio may leave 1 and still gain."""

    clip_value_loss: bool = False
    """Whether the critic's change is clipped too, at clip_epsilon."""

    entropy_coef: float = 0.01
    """Weight of the entropy bonus."""

    value_coef: float = 0.5
    """Weight of the critic's loss."""

    max_grad_norm: float = 0.5
    """Norm, over all parameters, above which a gradient is scaled down."""

    normalize_advantage: bool = True
    """Whether each minibatch's advantages are brought to mean 0 and standard deviation 1."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Units of each hidden layer, in the actor as in the critic."""

    activation: Activation = "tanh"
    """Nonlinearity of the hidden layers."""

    def __post_init__(self) -> None:
        if not isinstance(self.env_id, str):
            raise TypeError(f"env_id must be a string, not {self.env_id!r}")
        if not isinstance(self.hidden_sizes, Sequence):
            raise TypeError(f"hidden_sizes must be a tuple of integers, not {self.hidden_sizes!r}")
        # A config read back from JSON has a list here, which has no hash.
        object.__setattr__(self, "hidden_sizes", tuple(self.hidden_sizes))
        for name in _COUNTS:
            _check_int(name, getattr(self, name), least=1)
        for size in self.hidden_sizes:
            _check_int("each of hidden_sizes", size, least=1)
        _check_int("seed", self.seed, least=0, most=2**32 - 1)  # what a random key takes
        for name in ("learning_rate", "clip_epsilon", "max_grad_norm"):
            _check_float(name, getattr(self, name), above=0.0)
        for name in ("entropy_coef", "value_coef"):
            _check_float(name, getattr(self, name), least=0.0)
        for name in ("gamma", "gae_lambda"):
            _check_float(name, getattr(self, name), least=0.0, most=1.0)
        if self.activation not in get_args(Activation):
            known = " or ".join(map(repr, get_args(Activation)))
            raise ValueError(f"activation must be {known}, not {self.activation!r}")
        if self.steps_per_update % self.num_minibatches:
            raise ValueError(
                f"num_envs * num_steps = {self.num_envs} * {self.num_steps} ="
                f" {self.steps_per_update} steps can't be cut into num_minibatches ="
                f" {self.num_minibatches} equal parts"
            )

    @property
    def steps_per_update(self) -> int:
        """Environment steps that one update collects and learns from."""
        return self.num_envs * self.num_steps

    @property
    def updates_per_record(self) -> int:
        """Updates from one metrics record to the next."""
        return math.ceil(min(self.log_interval, self.total_timesteps) / self.steps_per_update)

    @property
    def steps_per_record(self) -> int:
        """Environment steps from one metrics record to the next."""
        return self.updates_per_record * self.steps_per_update

    @property
    def num_records(self) -> int:
        """Metrics records that the run writes."""
        return math.ceil(self.total_timesteps / self.steps_per_record)


def _check_int(name: str, value: Any, *, least: int, most: float = math.inf) -> None:
    try:
        ok = least <= operator.index(value) <= most
    except TypeError:
        ok = False
    if not ok:
        bounds = f"at least {least}" if most == math.inf else f"{least} to {most}"
        raise ValueError(f"{name} must be an integer of {bounds}, not {value!r}")


def _check_float(
    name: str,
    value: Any,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
) -> None:
    if not (isinstance(value, Real) and math.isfinite(value)):
        raise ValueError(f"{name} must be a finite number, not {value!r}")
    number = float(value)
    if not number > above:
        raise ValueError(f"{name} must be greater than {above}, not {value!r}")
    if not least <= number <= most:
        bounds = f"at least {least}" if most == math.inf else f"between {least} and {most}"
        raise ValueError(f"{name} must be {bounds}, not {value!r}")

"""What `train_dqn` is told."""

from dataclasses import dataclass

from vibe_rl.runner.config import (
    Activation,
    TrainConfig,
    check_choice,
    check_float,
    check_int,
    check_sizes,
)


@dataclass(frozen=True, kw_only=True)
class DQNConfig(TrainConfig):
    """Settings of `train_dqn`; the defaults solve CartPole-v1.

    See `TrainConfig` for those that all algorithms share.

    Raises:
        ValueError: If a value is out of its range; the message names the field and the value.

    Examples:
        >>> config = DQNConfig(env_id="Acrobot-v1", epsilon_end=0.1)
        >>> config.num_updates, config.steps_per_update
        (62500, 8)
    """

    num_steps: int = 1
    """Steps in each environment before an update, so that one adds num_envs * num_steps."""

    gradient_steps: int = 1
    """Gradient steps in an update, each on a batch of its own."""

    buffer_size: int = 100_000
    """Steps that the replay buffer keeps, over all environments; then the oldest ones go."""

    batch_size: int = 64
    """Steps drawn from the replay buffer for a gradient step."""

    learning_starts: int = 1_000
    """Environment steps before the first gradient step."""

    learning_rate: float = 1e-3
    """Adam's step size; the first one, if it is annealed."""

    anneal_learning_rate: bool = True
    """Whether the step size falls linearly to zero over the run."""

    max_grad_norm: float = 10.0
    """Norm, over all parameters, above which a gradient is scaled down."""

    gamma: float = 0.99
    """Discount factor of future rewards, for each step."""

    target_interval: int = 50
    """Gradient steps after which the target network becomes a copy of the other."""

    epsilon_start: float = 1.0
    """Share of random actions in the beginning."""

    epsilon_end: float = 0.05
    """Share of random actions after `epsilon_steps`."""

    epsilon_steps: int = 50_000
    """Environment steps over which the share of random actions changes, linearly."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Units of each hidden layer."""

    activation: Activation = "relu"
    """Nonlinearity of the hidden layers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        # A config read back from JSON has a list here, which has no hash.
        object.__setattr__(self, "hidden_sizes", check_sizes("hidden_sizes", self.hidden_sizes))
        for name in (
            "num_steps",
            "gradient_steps",
            "batch_size",
            "target_interval",
            "epsilon_steps",
        ):
            check_int(name, getattr(self, name), least=1)
        check_int("learning_starts", self.learning_starts, least=0)
        for name in ("learning_rate", "max_grad_norm"):
            check_float(name, getattr(self, name), above=0.0)
        for name in ("gamma", "epsilon_start", "epsilon_end"):
            check_float(name, getattr(self, name), least=0.0, most=1.0)
        check_choice("activation", self.activation, Activation)
        least = max(self.steps_per_update, self.batch_size)
        check_int("buffer_size", self.buffer_size, least=least)

    @property
    def steps_per_update(self) -> int:
        """Environment steps that one update takes."""
        return self.num_envs * self.num_steps

    @property
    def can_be_extended(self) -> bool:
        """Whether more `total_timesteps` leave a run's first part as it was: not if annealed."""
        return not self.anneal_learning_rate

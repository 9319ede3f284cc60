"""What `train_sac` is told."""

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
class SACConfig(TrainConfig):
    """Settings of `train_sac`; the defaults solve Pendulum-v1.

    See `TrainConfig` for those that all algorithms share.

    Raises:
        ValueError: If a value is out of its range; the message names the field and the value.

    Examples:
        >>> config = SACConfig(total_timesteps=50_000, hidden_sizes=(256, 256))
        >>> config.num_updates, config.steps_per_update
        (12500, 4)
    """

    env_id: str = "Pendulum-v1"
    """Environment, by its gymnax id."""

    total_timesteps: int = 20_000
    """Environment steps to train for, over all environments. Rounded up to a whole update."""

    log_interval: int = 1_000
    """Environment steps from one metrics record to the next. The last one may be shorter."""

    eval_interval: int = 5_000
    """Environment steps from one evaluation to the next; there is one at the end too. 0: none."""

    checkpoint_interval: int = 10_000
    """Environment steps from one checkpoint to the next; there is one at the end too. 0: none."""

    num_envs: int = 4
    """Environments stepped side by side."""

    num_steps: int = 1
    """Steps in each environment before an update, so that one adds num_envs * num_steps."""

    gradient_steps: int = 4
    """Gradient steps in an update, each on a batch of its own."""

    buffer_size: int = 100_000
    """Steps that the replay buffer keeps, over all environments; then the oldest ones go."""

    batch_size: int = 128
    """Steps drawn from the replay buffer for a gradient step."""

    learning_starts: int = 1_000
    """Environment steps before the first gradient step."""

    learning_rate: float = 1e-3
    """Adam's step size: for the actor, the critics and the temperature."""

    gamma: float = 0.99
    """Discount factor of future rewards, for each step."""

    tau: float = 0.005
    """How far the target critics go towards the critics with each gradient step."""

    initial_alpha: float = 1.0
    """The first temperature: what a nat of entropy is worth in reward."""

    target_entropy: float | None = None
    """Entropy that the temperature keeps the policy at, in nats, for actions scaled to [-1, 1].
    None is minus the number of an action's components."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Units of each hidden layer, in the actor as in each critic."""

    activation: Activation = "relu"
    """Nonlinearity of the hidden layers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        # A config read back from JSON has a list here, which has no hash.
        object.__setattr__(self, "hidden_sizes", check_sizes("hidden_sizes", self.hidden_sizes))
        for name in ("num_steps", "gradient_steps", "batch_size"):
            check_int(name, getattr(self, name), least=1)
        check_int("learning_starts", self.learning_starts, least=0)
        for name in ("learning_rate", "initial_alpha"):
            check_float(name, getattr(self, name), above=0.0)
        for name in ("gamma", "tau"):
            check_float(name, getattr(self, name), least=0.0, most=1.0)
        if self.target_entropy is not None:
            check_float("target_entropy", self.target_entropy)
        check_choice("activation", self.activation, Activation)
        least = max(self.steps_per_update, self.batch_size)
        check_int("buffer_size", self.buffer_size, least=least)

    @property
    def steps_per_update(self) -> int:
        """Environment steps that one update takes."""
        return self.num_envs * self.num_steps

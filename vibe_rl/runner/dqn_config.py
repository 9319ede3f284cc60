"""What `train_dqn` is told."""

from dataclasses import dataclass

from vibe_rl.runner.config import MOST_INT, check_float, check_int
from vibe_rl.runner.off_policy_config import OffPolicyConfig


@dataclass(frozen=True, kw_only=True)
class DQNConfig(OffPolicyConfig):
    """Settings of `train_dqn`; the defaults solve CartPole-v1.

    See `TrainConfig` for those that all algorithms share, and `OffPolicyConfig` for more.

    Raises:
        ValueError: If a value is out of its range; the message names the field and the value.

    Examples:
        >>> config = DQNConfig(env_id="Acrobot-v1", epsilon_end=0.1)
        >>> config.num_updates, config.steps_per_update
        (62500, 8)
    """

    anneal_learning_rate: bool = True
    """Whether the step size falls linearly to zero over the run."""

    max_grad_norm: float = 10.0
    """Norm, over all parameters, above which a gradient is scaled down."""

    target_interval: int = 200
    """Gradient steps after which the target network becomes a copy of the other."""

    epsilon_start: float = 1.0
    """Share of random actions in the beginning."""

    epsilon_end: float = 0.05
    """Share of random actions after `epsilon_steps`."""

    epsilon_steps: int = 50_000
    """Environment steps over which the share of random actions changes, linearly."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("target_interval", self.target_interval, least=1)
        check_int("epsilon_steps", self.epsilon_steps, least=1, most=MOST_INT)
        check_float("max_grad_norm", self.max_grad_norm, above=0.0)
        for name in ("epsilon_start", "epsilon_end"):
            check_float(name, getattr(self, name), least=0.0, most=1.0)

    @property
    def can_be_extended(self) -> bool:
        """Whether more `total_timesteps` leave a run's first part as it was: not if annealed."""
        return not self.anneal_learning_rate

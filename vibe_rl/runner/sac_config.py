"""What `train_sac` is told."""

from dataclasses import dataclass

from vibe_rl.runner.config import check_float
from vibe_rl.runner.off_policy_config import OffPolicyConfig


@dataclass(frozen=True, kw_only=True)
class SACConfig(OffPolicyConfig):
    """Settings of `train_sac`; the defaults solve Pendulum-v1.

    See `TrainConfig` for those that all algorithms share, and `OffPolicyConfig` for more.

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

    gradient_steps: int = 4
    """Gradient steps in an update, each on a batch of its own."""

    batch_size: int = 128
    """Steps drawn from the replay buffer for a gradient step."""

    tau: float = 0.005
    """How far the target critics go towards the critics with each gradient step."""

    initial_alpha: float = 1.0
    """The first temperature: what a nat of entropy is worth in reward."""

    target_entropy: float | None = None
    """Entropy that the temperature keeps the policy at, in nats, for actions scaled to [-1, 1].
    None is minus the number of an action's components."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_float("tau", self.tau, least=0.0, most=1.0)
        check_float("initial_alpha", self.initial_alpha, above=0.0)
        if self.target_entropy is not None:
            check_float("target_entropy", self.target_entropy)

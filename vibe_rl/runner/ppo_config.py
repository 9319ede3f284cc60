"""What `train_ppo` is told."""

from dataclasses import dataclass

from vibe_rl.runner.config import Activation, TrainConfig, check_float, check_int


@dataclass(frozen=True, kw_only=True)
class PPOConfig(TrainConfig):
    """Settings of `train_ppo`; the defaults solve CartPole-v1 and Pendulum-v1.

    See `TrainConfig` for those that all algorithms share.

    Raises:
        ValueError: If a value is out of its range; the message names the field and the value.

    Examples:
        >>> config = PPOConfig(env_id="Acrobot-v1", total_timesteps=200_000)
        >>> config.num_updates, config.steps_per_update
        (200, 1000)
    """

    num_steps: int = 125
    """Steps in each environment before an update, so that one sees num_envs * num_steps."""

    activation: Activation = "tanh"
    """Nonlinearity of the hidden layers."""

    update_epochs: int = 4
    """Passes over the collected steps in one update."""

    num_minibatches: int = 4
    """Gradient steps in one pass, each on its share of the collected steps."""

    anneal_learning_rate: bool = True
    """Whether the step size falls linearly to zero over the run."""

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

    scale_rewards: bool = True
    """Whether rewards are divided by the standard deviation of the discounted returns so far, and
    clipped to [-10, 10], so that one step size suits returns of unlike sizes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("update_epochs", "num_minibatches"):
            check_int(name, getattr(self, name), least=1)
        for name in ("clip_epsilon", "max_grad_norm"):
            check_float(name, getattr(self, name), above=0.0)
        for name in ("entropy_coef", "value_coef"):
            check_float(name, getattr(self, name), least=0.0)
        check_float("gae_lambda", self.gae_lambda, least=0.0, most=1.0)
        if self.steps_per_update % self.num_minibatches:
            raise ValueError(
                f"num_envs * num_steps = {self.num_envs} * {self.num_steps} ="
                f" {self.steps_per_update} steps can't be cut into num_minibatches ="
                f" {self.num_minibatches} equal parts"
            )
        if self.normalize_advantage and self.steps_per_update == self.num_minibatches:
            raise ValueError(
                f"num_minibatches = {self.num_minibatches} leaves one step to each, whose advantage"
                " normalize_advantage makes 0: nothing would be learned"
            )

    @property
    def can_be_extended(self) -> bool:
        """Whether more `total_timesteps` leave a run's first part as it was: not if annealed."""
        return not self.anneal_learning_rate

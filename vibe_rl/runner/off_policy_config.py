"""What algorithms that learn from replayed steps are told."""

import math
from dataclasses import dataclass

from vibe_rl.runner.config import MOST_INT, TrainConfig, check_int


@dataclass(frozen=True, kw_only=True)
class OffPolicyConfig(TrainConfig):
    """The settings that such algorithms share."""

    gradient_steps: int = 1
    """Gradient steps in an update, each on a batch of its own."""

    buffer_size: int = 100_000
    """Steps that the replay buffer keeps, over all environments; then the oldest ones go."""

    batch_size: int = 64
    """Steps drawn from the replay buffer for a gradient step."""

    learning_starts: int = 1_000
    """Environment steps before the first gradient step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("gradient_steps", "batch_size"):
            check_int(name, getattr(self, name), least=1)
        check_int("learning_starts", self.learning_starts, least=0, most=MOST_INT)
        least = max(self.steps_per_update, self.batch_size)
        check_int("buffer_size", self.buffer_size, least=least)

    @property
    def num_gradient_steps(self) -> int:
        """Gradient steps in the whole run: there are none before `learning_starts`."""
        waiting = max(math.ceil(self.learning_starts / self.steps_per_update) - 1, 0)
        return max(self.num_updates - waiting, 0) * self.gradient_steps

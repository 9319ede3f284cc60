"""The services that records are fanned out to: one file each, behind one small protocol."""

from vibe_rl.metrics.backends.protocol import LogBackend
from vibe_rl.metrics.backends.tensorboard import TensorBoardBackend
from vibe_rl.metrics.backends.wandb import WandbBackend, resume_wandb

__all__ = ["LogBackend", "TensorBoardBackend", "WandbBackend", "resume_wandb"]

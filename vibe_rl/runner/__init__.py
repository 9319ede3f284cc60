"""Training runs that log themselves: one algorithm a file."""

import importlib
from typing import TYPE_CHECKING, Any

from vibe_rl.runner.dqn_config import DQNConfig
from vibe_rl.runner.ppo_config import PPOConfig
from vibe_rl.runner.sac_config import SACConfig

if TYPE_CHECKING:
    from vibe_rl.runner.dqn import train_dqn
    from vibe_rl.runner.ppo import train_ppo
    from vibe_rl.runner.sac import train_sac

__all__ = ["DQNConfig", "PPOConfig", "SACConfig", "train_dqn", "train_ppo", "train_sac"]

_LAZY = {"train_dqn": "dqn", "train_ppo": "ppo", "train_sac": "sac"}


def __getattr__(name: str) -> Any:
    # A config alone shall not cost the seconds that JAX and the environments take to import.
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{name} needs {error.name}, which is not installed: pip install 'vibe-rl[train]'"
        ) from error

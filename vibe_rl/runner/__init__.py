"""Training runs that log themselves: one algorithm a file."""

from typing import TYPE_CHECKING, Any

from vibe_rl.runner.ppo_config import PPOConfig

if TYPE_CHECKING:
    from vibe_rl.runner.ppo import train_ppo

__all__ = ["PPOConfig", "train_ppo"]


def __getattr__(name: str) -> Any:
    # A config alone shall not cost the seconds that JAX and the environments take to import.
    if name != "train_ppo":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from vibe_rl.runner.ppo import train_ppo  # noqa: PLC0415 - see above
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{name} needs {error.name}, which is not installed: pip install 'vibe-rl[train]'"
        ) from error
    return train_ppo

"""What a run was begun with, kept in its directory: a checkpoint goes on with nothing else."""

from typing import Any

from vibe_rl.config_json import decode_config, encode_config
from vibe_rl.run_dir import RunDir
from vibe_rl.runner.config import TrainConfig
from vibe_rl.runner.environment import VectorEnv

_ENVIRONMENT = "environment.json"


def check_settings(run_dir: RunDir, config: TrainConfig, env: VectorEnv) -> None:
    """Raise unless the run's checkpoint, if it has one, can go on so.

    Args:
        run_dir: The run's directory; nothing in it changes.
        config: The settings, whose `env_id` is the environment's name.
        env: The environments.

    Raises:
        ValueError: If the run had other settings or another environment, or if its checkpoint is
            not of this algorithm.
    """
    checkpoint = run_dir.latest_checkpoint()
    if checkpoint is None:
        return
    try:
        saved = run_dir.load_config()
    except FileNotFoundError:
        saved = {}
    given = decode_config(encode_config(config))
    if saved.keys() != given.keys():
        raise ValueError(
            f"{checkpoint} is of another program or algorithm, for the run has no config.json like"
            f" {type(config).__name__}: train in a new run directory"
        )
    longer = saved["total_timesteps"] < config.total_timesteps
    if longer and config.can_be_extended:
        saved["total_timesteps"] = config.total_timesteps
    try:
        saved["env"] = run_dir.load_config(_ENVIRONMENT)
        given["env"] = _description(env)
    except FileNotFoundError:
        pass  # of an earlier version, which kept its name alone
    if changes := _changes(saved, given):
        hint = ""
        if longer and not config.can_be_extended:
            hint = "; its schedules depend on total_timesteps, so it can't be made longer"
        raise ValueError(
            f"{run_dir.root} holds a run with {changes}: go on with the same config and the same"
            f" `env`, or train in a new run directory{hint}"
        )


def save_settings(run_dir: RunDir, config: TrainConfig, env: VectorEnv) -> None:
    """Write `config.json`, and beside it what the environment is, which `env_id` may not say."""
    run_dir.save_config(config)
    run_dir.save_config(_description(env), _ENVIRONMENT)


def _description(env: VectorEnv) -> dict[str, Any]:
    """An environment's class and parameters, in plain values."""
    try:
        return decode_config(encode_config({"class": env.kind, "params": env.params}))
    except TypeError:  # the parameters have no such form
        return {"class": env.kind, "params": type(env.params).__name__}


def _changes(saved: dict[str, Any], given: dict[str, Any], inside: str = "") -> str:
    """What differs, nested values by their parts: `gamma=0.99, not 0.9`."""
    parts = []
    for name in sorted(saved.keys() | given.keys()):
        old, new = saved.get(name), given.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            parts.append(_changes(old, new, f"{inside}{name}."))
        elif old != new and repr(old) != repr(new):  # NaN is like NaN
            parts.append(f"{inside}{name}={old!r}, not {new!r}")
    return ", ".join(filter(None, parts))

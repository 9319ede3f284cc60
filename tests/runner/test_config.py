import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from vibe_rl.run_dir import RunDir
from vibe_rl.runner import PPOConfig


def test_a_config_is_immutable_hashable_and_compared_by_value():
    config = PPOConfig(seed=3, hidden_sizes=(32,))
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 4
    assert config == PPOConfig(seed=3, hidden_sizes=(32,))
    assert hash(config) == hash(dataclasses.replace(PPOConfig(hidden_sizes=(32,)), seed=3))


def test_a_config_comes_back_from_a_run_directory(tmp_path):
    config = PPOConfig(hidden_sizes=(32, 16), activation="relu", gamma=0.9)
    run = RunDir("saved", tmp_path)
    run.save_config(config)
    restored = PPOConfig(**run.load_config())
    assert restored == config
    assert hash(restored) == hash(config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"total_timesteps": 0}, "total_timesteps must be an integer of 1 to 4294967295, not 0"),
        (
            {"total_timesteps": 5e5},
            "total_timesteps must be an integer of 1 to 4294967295, not 500000.0",
        ),
        ({"log_interval": -1}, "log_interval must be an integer of at least 1, not -1"),
        ({"num_envs": 0}, "num_envs"),
        ({"num_steps": 0}, "num_steps"),
        ({"update_epochs": 0}, "update_epochs"),
        ({"num_minibatches": 0}, "num_minibatches"),
        ({"hidden_sizes": (64, 0)}, "each of hidden_sizes must be an integer of at least 1, not 0"),
        (
            {"num_seeds": 2 * 10**12},
            "num_seeds must be an integer of 1 to 1000000, not 2000000000000",
        ),
        ({"seed": -1}, "seed must be an integer of 0 to 4294967295, not -1"),
        ({"learning_rate": 0.0}, "learning_rate must be greater than 0.0, not 0.0"),
        ({"learning_rate": "1e-3"}, "learning_rate must be a finite number, not '1e-3'"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number, not nan"),
        ({"learning_rate": 10**400}, "learning_rate must be a finite number, not 1000"),
        ({"learning_rate": 1e39}, "learning_rate must be a finite number, not 1e+39"),
        ({"gamma": True}, "gamma must be a finite number, not True"),
        ({"num_envs": True}, "num_envs must be an integer of at least 1, not True"),
        ({"anneal_learning_rate": "no"}, "anneal_learning_rate must be True or False, not 'no'"),
        ({"total_timesteps": 2**32 - 1}, "rounded up to whole updates of 1000 steps, must be at"),
        ({"clip_epsilon": -0.2}, "clip_epsilon"),
        ({"max_grad_norm": 0}, "max_grad_norm"),
        ({"entropy_coef": -1.0}, "entropy_coef must be at least 0.0, not -1.0"),
        ({"value_coef": -1.0}, "value_coef"),
        ({"gamma": np.float32(2)}, "gamma must be between 0.0 and 1.0, not np.float32(2.0)"),
        ({"gamma": 1.1}, "gamma must be between 0.0 and 1.0, not 1.1"),
        ({"gae_lambda": -0.1}, "gae_lambda must be between 0.0 and 1.0, not -0.1"),
        ({"activation": "gelu"}, "activation must be 'tanh' or 'relu', not 'gelu'"),
        ({"num_envs": 3, "num_steps": 5, "num_minibatches": 4}, "3 * 5 = 15 steps"),
        ({"num_envs": 3, "num_steps": 5, "num_minibatches": 15}, "leaves one step to each"),
    ],
)
def test_a_value_out_of_range_is_named(settings, message):
    with pytest.raises(ValueError) as caught:
        PPOConfig(**settings)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("total_timesteps", "log_interval", "updates_per_record", "num_updates"),
    [
        (1000, 200, 2, 10),
        (1000, 250, 3, 10),  # an interval is rounded up to whole updates
        (1001, 200, 2, 11),  # and so is the run, but not to whole intervals
        (250, 10_000, 3, 3),  # a run shorter than an interval
        (1, 1, 1, 1),
    ],
)
def test_intervals_and_runs_are_rounded_up_to_whole_updates(
    total_timesteps, log_interval, updates_per_record, num_updates
):
    config = PPOConfig(
        total_timesteps=total_timesteps, log_interval=log_interval, num_envs=10, num_steps=10
    )
    assert config.updates_per_record == updates_per_record
    assert config.num_updates == num_updates


def test_a_config_costs_no_import_of_jax():
    code = """
import sys
from vibe_rl.runner import PPOConfig
PPOConfig()
print([name for name in ("jax", "flax", "optax", "gymnax", "rich") if name in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_missing_library_is_named_with_the_extra_that_brings_it():
    code = """
import sys
sys.modules["gymnax"] = None
try:
    from vibe_rl.runner import train_ppo
except ImportError as error:
    print(error)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "gymnax" in out.stdout
    assert "pip install 'vibe-rl[train]'" in out.stdout


@pytest.mark.parametrize("seed", [2**32, 2**63])
def test_a_seed_that_would_stand_for_another_is_refused(seed):
    with pytest.raises(ValueError, match="seed must be an integer of 0 to 4294967295"):
        PPOConfig(seed=seed)


@pytest.mark.parametrize("wrong", [{"env_id": 3}, {"hidden_sizes": 64}])
def test_a_field_of_another_type_is_named(wrong):
    with pytest.raises(TypeError, match=next(iter(wrong))):
        PPOConfig(**wrong)

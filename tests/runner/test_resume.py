"""Runs that are killed and go on: the same numbers as if they had never stopped."""

import dataclasses
import random
import signal
import time

import jax
import numpy as np
import pytest

from vibe_rl import runner
from vibe_rl.metrics import MetricsLogger, read_metrics
from vibe_rl.run_dir import RunDir
from vibe_rl.runner import DQNConfig, PPOConfig, SACConfig, train_ppo

CONFIG = PPOConfig(
    total_timesteps=640,
    log_interval=32,
    num_envs=4,
    num_steps=8,
    num_minibatches=2,
    update_epochs=1,
    hidden_sizes=(8,),
    eval_interval=96,
    eval_episodes=2,
    checkpoint_interval=160,
    anneal_learning_rate=False,
)

# The replay buffer is full before the first checkpoint, and its oldest steps are overwritten.
OFF_POLICY = {
    "total_timesteps": 640,
    "log_interval": 32,
    "num_envs": 4,
    "num_steps": 2,
    "buffer_size": 96,
    "batch_size": 16,
    "learning_starts": 48,
    "hidden_sizes": (8,),
    "eval_interval": 160,
    "eval_episodes": 2,
    "checkpoint_interval": 160,
}
CONFIGS = {
    "train_ppo": CONFIG,
    "train_dqn": DQNConfig(**OFF_POLICY, target_interval=7, epsilon_steps=500),
    "train_sac": SACConfig(**OFF_POLICY, gradient_steps=2),
}


def records(run):
    """The records of a run without what a clock has measured; NaN equal to NaN."""
    timed = ("wall_time", "steps_per_second")
    return [
        repr({name: value for name, value in record.items() if name not in timed})
        for record in read_metrics(run, strict=True)
    ]


def plain(state):
    """A state's arrays, random keys as numbers."""
    is_key = lambda x: jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, state)


def assert_same(results, expected):
    (state, metrics), (expected_state, expected_metrics) = results, expected
    jax.tree.map(np.testing.assert_array_equal, plain(state), plain(expected_state))
    jax.tree.map(np.testing.assert_array_equal, metrics, expected_metrics)


def steps(run):
    return [int(path.name.removeprefix("step_")) for path in run.list_checkpoints()]


class StopError(Exception):
    pass


def stop_at(step):
    def stop(at, train_state, metrics):
        if at == step:
            raise StopError

    return stop


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that never stopped."""
    run = RunDir("whole", tmp_path_factory.mktemp("runs"))
    return run, train_ppo(CONFIG, run_dir=run)


@pytest.mark.parametrize("stop", [64, 352])  # before the first checkpoint; after several
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(whole, stop, tmp_path):
    expected_run, expected = whole
    run = RunDir("stopped", tmp_path)
    with pytest.raises(StopError):
        train_ppo(CONFIG, run_dir=run, callback=stop_at(stop))
    assert read_metrics(run)[-1]["step"] == stop

    results = train_ppo(CONFIG, run_dir=run)
    assert_same(results, expected)
    assert records(run) == records(expected_run)
    assert steps(run) == steps(expected_run)
    assert run.best_checkpoint().name == expected_run.best_checkpoint().name


def test_a_run_leaves_a_picture_of_its_returns(whole):
    run, _ = whole
    assert run.artifact_path("learning_curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_is_complete_gives_what_it_gave(whole):
    run, expected = whole
    before = run.log_path().read_bytes()
    assert_same(train_ppo(CONFIG, run_dir=run), expected)
    assert run.log_path().read_bytes() == before


def test_the_latest_checkpoints_stay_and_that_of_the_best_evaluation(whole):
    run, (_, metrics) = whole
    best = int(metrics["eval_step"][metrics["eval_return_mean"].argmax()])
    assert set(steps(run)) == {320, 480, 640, best} or set(steps(run)) >= {480, 640, best}
    assert steps(run)[-1] == 640
    assert int(run.best_checkpoint().name.removeprefix("step_")) == best


def test_a_run_may_be_made_longer_if_nothing_hangs_on_its_length(tmp_path):
    long = dataclasses.replace(CONFIG, total_timesteps=260)
    expected = train_ppo(long)
    run = RunDir("longer", tmp_path)
    train_ppo(dataclasses.replace(long, total_timesteps=128), run_dir=run)
    results = train_ppo(long, run_dir=run)
    jax.tree.map(np.testing.assert_array_equal, plain(results[0]), plain(expected[0]))
    for name in ("step", "critic_loss", "episode_return"):
        np.testing.assert_array_equal(results[1][name], expected[1][name])
    assert PPOConfig(**run.load_config()) == long


def test_other_settings_are_refused_by_name(whole, tmp_path):
    run, _ = whole
    with pytest.raises(
        ValueError, match=r"gamma=0.99, not 0.9, seed=0, not 1: go on with the same"
    ):
        train_ppo(dataclasses.replace(CONFIG, gamma=0.9, seed=1), run_dir=run)
    with pytest.raises(ValueError, match="total_timesteps=640, not 320"):
        train_ppo(dataclasses.replace(CONFIG, total_timesteps=320), run_dir=run)
    annealed = dataclasses.replace(CONFIG, anneal_learning_rate=True, total_timesteps=6400)
    with pytest.raises(ValueError, match="schedules depend on total_timesteps"):
        train_ppo(annealed, run_dir=run)
    assert PPOConfig(**run.load_config()) == CONFIG


def test_a_run_whose_file_another_logger_writes_is_not_resumed(tmp_path):
    run = RunDir("busy", tmp_path)
    with MetricsLogger(run) as logger:
        logger.write({"step": 5})
        logger.flush()
        with pytest.raises(OSError, match="another logger has the file open"):
            train_ppo(CONFIG, run_dir=run)


def test_without_an_interval_there_are_no_checkpoints(tmp_path):
    run = RunDir("none", tmp_path)
    train_ppo(dataclasses.replace(CONFIG, total_timesteps=96, checkpoint_interval=0), run_dir=run)
    assert list(run.checkpoints.iterdir()) == []


RUN = """
import sys
from pathlib import Path
from vibe_rl import runner
from vibe_rl.run_dir import RunDir
config = eval(sys.argv[2], vars(runner))
train = getattr(runner, sys.argv[1])
root = Path(sys.argv[3])
train(config, run_dir=RunDir(run_id=root.name, base_dir=root.parent))
"""


@pytest.mark.parametrize("name", CONFIGS)
def test_killed_at_any_moment_a_run_goes_on(name, tmp_path, python, scale):
    """Whatever it was at: compiling, training, evaluating, saving, appending, deleting."""
    config, train = CONFIGS[name], getattr(runner, name)
    expected_run = RunDir("whole", tmp_path)
    expected = train(config, run_dir=expected_run)
    rng = random.Random(scale(name, time.time_ns()))  # noqa: S311 - no secret
    for trial in range(scale(1, 10)):
        run = RunDir(run_id=f"killed_{trial}", base_dir=tmp_path)
        for _ in range(2):
            kill(python(RUN, name, repr(config), run.root), run, rng)
        assert_same(train(config, run_dir=run), expected)
        assert records(run) == records(expected_run)
        said = [(record["step"], "eval_return_mean" in record) for record in read_metrics(run)]
        assert len(said) == len(set(said)) == 20 + len(expected[1]["eval_step"])


def kill(process, run, rng):
    """Kill a process that trains, a few records after those that the run has."""
    goal = len(read_metrics(run)) + rng.randrange(10)
    while process.poll() is None and len(read_metrics(run)) <= goal:
        time.sleep(0.002)
    time.sleep(rng.random() * 0.05)
    process.send_signal(signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode in {0, -signal.SIGKILL}, err

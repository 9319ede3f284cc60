"""Runs that are killed and go on: the same numbers as if they had never stopped."""

import dataclasses
import functools
import itertools
import random
import signal
import time

import jax
import numpy as np
import pytest
from gymnax.environments.classic_control.cartpole import CartPole, EnvParams

from vibe_rl import runner
from vibe_rl.metrics import MetricsLogger, read_metrics
from vibe_rl.run_dir import RunDir
from vibe_rl.runner import DQNConfig, PPOConfig, SACConfig, train_ppo
from vibe_rl.runner.compiled import Compiled
from vibe_rl.runner.run_lock import training_alone

# Evaluates when no checkpoint is due, and then saves one if it is the best.
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
    "train_dqn": DQNConfig(**OFF_POLICY, target_interval=7, epsilon_steps=500, num_seeds=2),
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


def placed(array):
    return array.dtype, array.sharding


def assert_same(results, expected):
    (state, metrics), (expected_state, expected_metrics) = results, expected
    jax.tree.map(np.testing.assert_array_equal, plain(state), plain(expected_state))
    assert jax.tree.map(placed, state) == jax.tree.map(placed, expected_state)
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
    """`whole(name)`: a run that never stopped, and what it gave."""

    @functools.cache  # one for all tests, as each must compile
    def train(name):
        run = RunDir(name, tmp_path_factory.mktemp("runs"))
        return run, getattr(runner, name)(CONFIGS[name], run_dir=run)

    return train


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(whole, tmp_path, caplog):
    expected_run, expected = whole("train_ppo")
    run = RunDir("stopped", tmp_path)
    warnings = []
    for stop in (64, 352):  # before the first checkpoint; after several
        with pytest.raises(StopError):
            train_ppo(CONFIG, run_dir=run, callback=stop_at(stop))
        kept = [record["step"] for record in read_metrics(run) if "entropy" in record]
        assert kept == [*range(32, stop + 1, 32)]  # what a run has logged that fails
        warnings.append([each for each in caplog.messages if "begins anew" in each])

    results = train_ppo(CONFIG, run_dir=run)
    assert warnings[0] == []
    assert warnings[1] == [each for each in caplog.messages if "begins anew" in each]
    assert str(run.log_path("metrics.superseded.jsonl")) in warnings[1][0]
    assert_same(results, expected)
    assert records(run) == records(expected_run)
    assert steps(run) == steps(expected_run)
    assert run.best_checkpoint().name == expected_run.best_checkpoint().name


def test_a_run_leaves_a_picture_of_its_returns(whole):
    run, _ = whole("train_ppo")
    assert run.artifact_path("learning_curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_is_complete_gives_what_it_gave(whole):
    run, expected = whole("train_ppo")
    before = run.log_path().read_bytes()
    assert_same(train_ppo(CONFIG, run_dir=run), expected)
    assert run.log_path().read_bytes() == before


def test_a_run_that_goes_on_only_traces_its_first_state(whole, monkeypatch):
    run, _ = whole("train_ppo")
    init, states = Compiled.init, []
    monkeypatch.setattr(Compiled, "init", lambda self: states.append(init(self)) or states[-1])
    train_ppo(CONFIG, run_dir=run)
    leaves = jax.tree.leaves(states)
    assert leaves
    assert all(isinstance(leaf, jax.core.Tracer) for leaf in leaves)


def test_the_latest_checkpoints_stay_and_that_of_the_best_evaluation(whole):
    run, (_, metrics) = whole("train_ppo")
    best = int(metrics["eval_step"][metrics["eval_return_mean"].argmax()])
    assert set(steps(run)) == {320, 480, 640, best} or set(steps(run)) >= {480, 640, best}
    assert steps(run)[-1] == 640
    assert int(run.best_checkpoint().name.removeprefix("step_")) == best


def test_a_run_may_be_made_longer_if_nothing_hangs_on_its_length(whole, tmp_path):
    _, (state, metrics) = whole("train_ppo")
    run = RunDir("longer", tmp_path)
    train_ppo(dataclasses.replace(CONFIG, total_timesteps=160), run_dir=run)
    longer, longer_metrics = train_ppo(CONFIG, run_dir=run)
    jax.tree.map(np.testing.assert_array_equal, plain(longer), plain(state))
    for name in ("step", "critic_loss", "episode_return"):
        np.testing.assert_array_equal(longer_metrics[name], metrics[name])
    assert PPOConfig(**run.load_config()) == CONFIG


def test_other_settings_are_refused_by_name(whole, tmp_path):
    run, _ = whole("train_ppo")
    with pytest.raises(
        ValueError, match=r"gamma=0.99, not 0.9, seed=0, not 1: go on with the same"
    ):
        train_ppo(dataclasses.replace(CONFIG, gamma=0.9, seed=1), run_dir=run)
    with pytest.raises(ValueError, match="total_timesteps=640, not 320"):
        train_ppo(dataclasses.replace(CONFIG, total_timesteps=320), run_dir=run)
    annealed = dataclasses.replace(CONFIG, anneal_learning_rate=True, total_timesteps=6400)
    with pytest.raises(ValueError, match="schedules depend on total_timesteps"):
        train_ppo(annealed, run_dir=run)
    with pytest.raises(ValueError, match=r"env\.params\.max_steps_in_episode=500, not 9: .* `env`"):
        train_ppo(CONFIG, env=(CartPole(), EnvParams(max_steps_in_episode=9)), run_dir=run)
    assert PPOConfig(**run.load_config()) == CONFIG


def test_a_checkpoint_of_another_program_is_refused(tmp_path):
    run = RunDir("foreign", tmp_path)
    run.checkpoint_dir(10).mkdir()
    for config in (None, {"lr": 1}, SACConfig()):
        if config is not None:
            run.save_config(config)
        with pytest.raises(ValueError, match=r"10 is of another program .* a new run directory"):
            train_ppo(CONFIG, run_dir=run)
    run.save_config(CONFIG)
    with pytest.raises(ValueError, match="10 is no checkpoint that this version has saved"):
        train_ppo(CONFIG, run_dir=run)


def test_a_checkpoint_with_random_keys_of_another_kind_is_refused(whole):
    run, _ = whole("train_ppo")
    with (
        jax.default_prng_impl("rbg"),
        pytest.raises(ValueError, match="is no checkpoint that this version has saved") as error,
    ):
        train_ppo(CONFIG, run_dir=run)
    assert "key<fry>() instead of key<rbg>()" in str(error.value.__cause__)


def test_a_run_whose_file_another_logger_writes_is_not_resumed(tmp_path):
    run = RunDir("busy", tmp_path)
    with MetricsLogger(run) as logger:
        logger.write({"step": 5})
        logger.flush()
        with pytest.raises(OSError, match="another logger has the file open"):
            train_ppo(CONFIG, run_dir=run)
    assert not (run.root / "config.json").exists()


def test_a_second_start_leaves_alone_a_run_under_way(tmp_path):
    run = RunDir("live", tmp_path)
    being_saved = run.checkpoints / "step_000000000032.orbax-checkpoint-tmp"
    with training_alone(run):
        being_saved.mkdir()
        run.save_config(CONFIG)
        with pytest.raises(OSError, match="a training is under way there"):
            train_ppo(dataclasses.replace(CONFIG, gamma=0.5), run_dir=run)
    assert being_saved.exists()
    assert PPOConfig(**run.load_config()) == CONFIG
    with training_alone(run):  # it is free again
        pass


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
def test_killed_at_any_moment_a_run_goes_on(name, whole, tmp_path, python, scale):
    """Whatever it was at: training, evaluating, saving, appending, deleting."""
    config, train = CONFIGS[name], getattr(runner, name)
    expected_run, expected = whole(name)
    rng = random.Random(scale(name, time.time_ns()))  # noqa: S311 - no secret
    news = scale([RunDir.list_checkpoints], [RunDir.list_checkpoints, read_metrics])
    runs = (RunDir(run_id=f"killed_{n}", base_dir=tmp_path) for n in itertools.count())

    def killed(run):
        """Whether the run was killed before it was complete."""
        process = python(RUN, name, repr(config), run.root)
        kill(process, run, news=rng.choice(news), wait=rng.random() * 0.3)
        return not run.checkpoint_dir(config.total_timesteps).exists()

    for _ in range(scale(1, 10)):
        run = next(run for run in runs if killed(run))
        if scale(False, True):
            killed(run)  # once more
        assert_same(train(config, run_dir=run), expected)
        assert records(run) == records(expected_run)
        said = [
            (record["step"], record.get("seed"), "eval_return_mean" in record)
            for record in read_metrics(run)
        ]
        assert len(said) == len(set(said)) == 20 * config.num_seeds + expected[1]["eval_step"].size


def kill(process, run, *, news, wait):
    """Kill a process that trains, some seconds after there are news of its run."""
    before = news(run)
    while process.poll() is None and news(run) == before:
        time.sleep(0.002)
    time.sleep(wait)
    process.kill()
    _, err = process.communicate()
    assert process.returncode in {0, -signal.SIGKILL}, err

"""Whole runs: what they log, that they repeat, and that they learn."""

import dataclasses
import functools
import logging
import time

import jax
import numpy as np
import pytest

from vibe_rl.metrics import read_metrics
from vibe_rl.run_dir import RunDir
from vibe_rl.runner import PPOConfig, ppo, train_ppo

FIELDS = [
    "step",
    "episode_return",
    "episode_length",
    "actor_loss",
    "critic_loss",
    "entropy",
    "approx_kl",
    "clip_fraction",
]

# Shared, so that the tests of a process compile it once.
SHORT = PPOConfig(
    total_timesteps=64,
    log_interval=16,
    num_envs=4,
    num_steps=4,
    num_minibatches=2,
    update_epochs=1,
    hidden_sizes=(8,),
    eval_interval=32,
    eval_episodes=2,
    checkpoint_interval=0,
)


EVALUATION = ["step", "eval_return_mean", "eval_return_std", "eval_length_mean"]


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory):
    """The default run, and how many records were in its file when it was at each step."""
    run, in_file = RunDir("cartpole", tmp_path_factory.mktemp("runs")), {}

    def look(step, train_state, metrics):
        expected = {10_000: 1, 250_000: 25 + 5}.get(step, 0)
        while len(read_metrics(run)) < expected:
            time.sleep(0.01)  # the run waits for us, so what comes now was logged live
        if expected:
            in_file[step] = len(read_metrics(run))

    _, metrics = train_ppo(PPOConfig(), run_dir=run, callback=look)
    return run, metrics, in_file


def test_the_defaults_solve_cartpole(cartpole):
    _, metrics, _ = cartpole
    assert metrics["step"][-1] == 500_000
    assert metrics["episode_return"][-1] >= 475
    assert metrics["episode_return"][0] < 100
    assert metrics["eval_return_mean"][-1] >= 475


def test_each_interval_has_its_record(cartpole):
    run, metrics, _ = cartpole
    records = [record for record in read_metrics(run) if "entropy" in record]
    assert [record["step"] for record in records] == list(range(10_000, 500_001, 10_000))
    for i, record in enumerate(records):
        assert set(record) - {"steps_per_second"} == {*FIELDS, "wall_time"}
        for name in FIELDS:
            assert record[name] == pytest.approx(metrics[name][i], rel=1e-6), name
    assert all(record["episode_return"] == record["episode_length"] for record in records)
    assert all(record["steps_per_second"] > 0 for record in records[1:])


def test_each_evaluation_has_its_record(cartpole):
    run, metrics, _ = cartpole
    records = [record for record in read_metrics(run) if "entropy" not in record]
    assert [record["step"] for record in records] == list(range(50_000, 500_001, 50_000))
    assert list(metrics["eval_step"]) == [record["step"] for record in records]
    for i, record in enumerate(records):
        assert set(record) == {*EVALUATION, "wall_time"}
        for name in EVALUATION[1:]:
            assert record[name] == pytest.approx(metrics[name][i], rel=1e-6), name
    assert set(metrics) == {*FIELDS, *EVALUATION[1:], "eval_step"}


def test_records_appear_while_training_runs(cartpole):
    _, _, in_file = cartpole
    assert in_file == {10_000: 1, 250_000: 30}


def test_the_config_is_saved_with_the_run(cartpole):
    run, _, _ = cartpole
    assert PPOConfig(**run.load_config()) == PPOConfig()


# Its last interval is shorter than the others.
UNEVEN = dataclasses.replace(SHORT, log_interval=48, eval_interval=0)


@pytest.fixture(scope="module")
def uneven():
    """`UNEVEN` with seeds 0, 0 and 1; and how often it was traced and compiled for that."""
    traced, said = [], []
    collect, log, listener = ppo.collect, logging.getLogger("jax"), logging.Handler()
    listener.emit = lambda record: said.append(record.getMessage())
    with pytest.MonkeyPatch.context() as patch, jax.log_compiles():
        patch.setattr(ppo, "collect", lambda *args: traced.append(1) or collect(*args))
        patch.setattr(log, "handlers", [*log.handlers, listener])
        runs = [train_ppo(dataclasses.replace(UNEVEN, seed=seed)) for seed in (0, 0, 1)]
    return runs, len(traced), sum("XLA compilation of jit(train)" in each for each in said)


def test_a_seed_repeats_and_all_seeds_share_one_compilation(uneven):
    [(state, metrics), (again_state, again), (other_state, other)], traced, compiled = uneven
    jax.tree.map(np.testing.assert_array_equal, metrics, again)
    jax.tree.map(np.testing.assert_array_equal, state.params, again_state.params)
    assert not (metrics["critic_loss"] == other["critic_loss"]).any()
    assert not (state.obs == other_state.obs).any()
    assert (traced, compiled) == (1, 1)


def test_one_compilation_serves_a_last_interval_that_is_shorter(uneven):
    [(_, metrics), *_], traced, compiled = uneven
    assert list(metrics["step"]) == [48, 64]
    assert (traced, compiled) == (1, 1)

    _, whole = train_ppo(SHORT)
    # The means over 48 steps are those of three times 16.
    np.testing.assert_allclose(metrics["entropy"][0], whole["entropy"][:3].mean(), rtol=1e-5)
    np.testing.assert_array_equal(metrics["entropy"][1], whole["entropy"][3])


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory):
    """A run of seeds 3 and 4, what it gave, and what its callback got."""
    run, seen = RunDir("seeds", tmp_path_factory.mktemp("runs")), []
    config = dataclasses.replace(SHORT, seed=3, num_seeds=2)
    results = train_ppo(config, run_dir=run, callback=lambda *args: seen.append(args))
    return run, results, seen


def test_seeds_side_by_side_are_the_runs_of_each_seed_alone(two_seeds):
    run, (state, metrics), _ = two_seeds
    assert list(run.checkpoints.iterdir()) == []  # as its checkpoint_interval is 0
    for i in range(2):
        alone, expected = train_ppo(dataclasses.replace(SHORT, seed=3 + i))
        close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
        jax.tree.map(close, jax.tree.map(lambda x, i=i: x[i], state.params), alone.params)
        for name, values in expected.items():
            close(metrics[name][i], values, err_msg=name)
        records = [record for record in read_metrics(run) if record["seed"] == 3 + i]
        assert [r["step"] for r in records if "entropy" in r] == [16, 32, 48, 64]
        assert [r["step"] for r in records if "entropy" not in r] == [32, 64]
        assert [r["entropy"] for r in records if "entropy" in r] == [
            pytest.approx(float(value), rel=1e-6) for value in metrics["entropy"][i]
        ]


def test_a_callback_gets_all_seeds_at_once(two_seeds):
    _, _, seen = two_seeds
    assert [step for step, _, _ in seen] == [16, 32, 48, 64]
    assert list(seen[0][2]["seed"]) == [3, 4]
    assert seen[0][1].obs.shape == (2, 4, 4)


def test_a_run_without_a_directory_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, metrics = train_ppo(SHORT)
    assert list(metrics["step"]) == [16, 32, 48, 64]
    assert list(tmp_path.iterdir()) == []


class Recorder:
    def __init__(self):
        self.steps = []
        self.closed = False

    def log(self, record, step=None):
        self.steps.append(step)

    def close(self):
        self.closed = True


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A run, what it gave, what its callback got, and its backend."""
    run, seen, backend = RunDir("short", tmp_path_factory.mktemp("runs")), [], Recorder()
    results = train_ppo(
        SHORT, run_dir=run, callback=lambda *args: seen.append(args), backends=[backend]
    )
    return run, results, seen, backend


def test_before_the_first_episode_the_return_is_nan(short):
    run, (_, metrics), *_ = short
    assert np.isnan(metrics["episode_return"][0])  # no pole falls within 4 steps
    assert np.isnan(read_metrics(run)[0]["episode_return"])


def test_a_callback_gets_each_record_and_the_state_of_that_moment(short):
    _, (state, metrics), seen, _ = short
    assert [step for step, _, _ in seen] == [16, 32, 48, 64]
    for i, (step, train_state, record) in enumerate(seen):
        assert record["step"] == step
        assert record["critic_loss"] == metrics["critic_loss"][i]
        assert ("eval_return_mean" in record) == (step in {32, 64})
        assert np.isfinite(train_state.obs).all()  # kept states stay readable
    biases = [seen[i][1].params["critic"]["params"]["Dense_1"]["bias"] for i in range(4)]
    assert len({float(bias[0]) for bias in biases}) == 4
    assert seen[-1][1] is state


def test_backends_get_every_record(short):
    *_, backend = short
    assert backend.steps == [16, 32, 32, 48, 64, 64]  # two of them of evaluations
    assert backend.closed


def test_backends_are_closed_too_if_the_run_is_refused(tmp_path):
    refused = Recorder(), Recorder()
    with pytest.raises(ValueError, match="give a run_dir"):
        train_ppo(SHORT, backends=[refused[0]])
    with pytest.raises(TypeError, match="config is a PPOConfig"):
        train_ppo(None, run_dir=RunDir("short", tmp_path), backends=[refused[1]])
    assert [each.closed for each in refused] == [True, True]
    with pytest.raises(TypeError, match="backends is a list of backends"):
        train_ppo(SHORT, run_dir=RunDir("short", tmp_path), backends=Recorder())


def test_an_unknown_environment_leaves_the_run_directory_as_it_was(tmp_path):
    run = RunDir("short", tmp_path)
    with pytest.raises(ValueError, match="unknown environment 'Pendulum-v9'"):
        train_ppo(PPOConfig(env_id="Pendulum-v9"), run_dir=run)
    assert not run.log_path().exists()


def test_arguments_of_another_kind_are_named(tmp_path):
    with pytest.raises(TypeError, match="config is a PPOConfig"):
        train_ppo({"seed": 1})
    with pytest.raises(TypeError, match="run_dir is a RunDir"):
        train_ppo(PPOConfig(), run_dir=tmp_path)

"""What the user's guide shows, as a user would type it: names, arguments, outcomes."""

import logging
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vibe_rl.metrics import (
    LogBackend,
    MetricsLogger,
    log_step_progress,
    read_metrics,
    setup_logging,
)
from vibe_rl.run_dir import RunDir
from vibe_rl.runner import PPOConfig, train_ppo


@pytest.fixture(autouse=True)
def in_a_directory_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def console():
    """Leaves the `vibe_rl` logger as it was."""
    logger = logging.getLogger("vibe_rl")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def test_lines_describe_themselves_and_their_fields_may_vary():
    run = RunDir("dqn_cartpole")
    logger = MetricsLogger(run.log_path())
    logger.write({"step": 1000, "loss": 0.42, "reward": 195.0})
    logger.write({"step": 2000, "loss": 0.31, "episode_return": 200.0})
    logger.close()
    assert re.fullmatch(
        rb'\{"step":1000,"loss":0\.42,"reward":195\.0,"wall_time":[\d.e-]+\}\n'
        rb'\{"step":2000,"loss":0\.31,"episode_return":200\.0,"wall_time":[\d.e-]+\}\n',
        run.log_path().read_bytes(),
    )


def test_wall_time_is_seconds_since_the_logger_was_made_unless_given():
    with MetricsLogger("metrics.jsonl") as logger:
        logger.write({"loss": 1.0})
        logger.write({"loss": 2.0})
        logger.write({"loss": 3.0, "wall_time": 123.0})
    first, second, third = (record["wall_time"] for record in read_metrics("metrics.jsonl"))
    assert isinstance(first, float)
    assert 0 <= first <= second
    assert third == 123.0


def test_jax_and_numpy_values_become_plain_numbers():
    with MetricsLogger("metrics.jsonl") as logger:
        logger.write({"step": 1000, "loss": jnp.array(0.42)})
        logger.write({"step": np.int64(2000), "loss": np.float32(0.31), "n": jnp.array(7)})
    first, second = logger.path.read_bytes().splitlines()
    assert b'"loss":0.42,' in first
    assert b'{"step":2000,"loss":0.31,"n":7,' in second


def test_leaving_the_block_closes_file_and_backends():
    closed = []

    class Backend:
        def log(self, record: dict[str, Any], step: int | None = None) -> None:
            pass

        def close(self) -> None:
            closed.append(True)

    run = RunDir("dqn_cartpole")
    with MetricsLogger(run.log_path(), backends=[Backend()]) as logger:
        for step in range(1000):
            logger.write({"step": step, "loss": 1 / (step + 1)})
    assert closed == [True]
    assert [record["step"] for record in read_metrics(run.log_path())] == list(range(1000))
    with pytest.raises(ValueError, match="closed"):
        logger.write({"step": 1000})


def test_metrics_live_in_the_logs_of_the_run():
    run = RunDir("dqn_cartpole")
    assert re.fullmatch(r"dqn_cartpole_\d{8}_\d{6}", run.root.name)
    assert run.root.parent.name == "runs"
    assert run.log_path() == run.root / "logs" / "metrics.jsonl"
    assert {path.name for path in run.root.iterdir()} == {
        *("logs", "checkpoints", "videos", "artifacts")
    }


def test_the_parent_directories_are_made():
    MetricsLogger("here/and/there/metrics.jsonl").close()
    assert read_metrics("here/and/there/metrics.jsonl") == []


def test_reading_back():
    run = RunDir("dqn_cartpole")
    with MetricsLogger(run.log_path()) as logger:
        logger.write({"step": 1000, "loss": 0.42, "reward": 195.0})
    (record,) = read_metrics(f"runs/{run.root.name}/logs/metrics.jsonl")
    assert type(record) is dict
    assert record == {"step": 1000, "loss": 0.42, "reward": 195.0, "wall_time": record["wall_time"]}
    assert read_metrics("runs/none/logs/metrics.jsonl") == []


def test_every_write_goes_to_the_file_and_to_all_backends():
    class Kept:
        def __init__(self) -> None:
            self.calls: list[tuple[dict[str, Any], int | None]] = []

        def log(self, record: dict[str, Any], step: int | None = None) -> None:
            self.calls.append((record, step))

        def close(self) -> None:
            pass

    backend1, backend2 = Kept(), Kept()
    assert isinstance(backend1, LogBackend)
    logger = MetricsLogger("metrics.jsonl", backends=[backend1, backend2])
    logger.write({"step": 1000, "loss": jnp.array(0.42)})
    logger.write({"loss": 0.31})
    logger.close()
    first, second = read_metrics("metrics.jsonl")
    assert backend1.calls == backend2.calls == [(first, 1000), (second, None)]


def test_a_run_that_is_opened_again_is_appended_to():
    run = RunDir("dqn_cartpole")
    with MetricsLogger(run.log_path()) as logger:
        logger.write({"step": 1000, "loss": 0.42})
    run = RunDir(run_id=run.root.name)
    with MetricsLogger(run.log_path()) as logger:
        logger.write({"step": 50000, "loss": 0.12, "reward": 200.0})
    assert [record["step"] for record in read_metrics(run.log_path())] == [1000, 50000]


def test_the_console_lines(console, capsys):
    setup_logging()
    setup_logging()  # replaces the handler
    logging.getLogger("vibe_rl").info("Starting training")
    logging.getLogger("vibe_rl").warning("Gradient norm exceeded threshold")
    logging.getLogger("vibe_rl").debug("not shown")
    log_step_progress(5000, 100_000, metrics={"loss": 0.42, "reward": 195.0})
    log_step_progress(0, 0, {"step": 1, "wall_time": 2.0}, logger_name="vibe_rl.eval")
    setup_logging(level=logging.DEBUG)
    logging.getLogger("vibe_rl").debug("shown")
    moment = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}"
    assert re.fullmatch(
        rf"I {moment} \[vibe_rl\] Starting training\n"
        rf"W {moment} \[vibe_rl\] Gradient norm exceeded threshold\n"
        rf"I {moment} \[vibe_rl\] step 5000/100000 \(5\.0%\) \| loss=0\.42 reward=195\n"
        rf"I {moment} \[vibe_rl\.eval\] step 0/0 \(0\.0%\)\n"
        rf"D {moment} \[vibe_rl\] shown\n",
        capsys.readouterr().err,
    )


def test_a_runner_logs_by_itself(console):
    setup_logging()
    config = PPOConfig(
        total_timesteps=20,
        log_interval=10,
        num_envs=2,
        num_steps=5,
        num_minibatches=2,
        eval_interval=0,
    )

    run = RunDir("ppo_cartpole")
    run.save_config(config)

    train_state, metrics = train_ppo(
        config=config,
        run_dir=run,
    )

    fields = {"actor_loss", "critic_loss", "entropy", "approx_kl", "clip_fraction"}
    records = read_metrics(run.log_path())
    assert [record["step"] for record in records] == [10, 20]
    assert all(fields <= set(record) for record in records)
    assert fields <= set(metrics)
    assert jax.tree.all(jax.tree.map(lambda x: bool(jnp.isfinite(x).all()), train_state.params))


def test_all_of_it_together(console):
    setup_logging()
    run = RunDir("dqn_cartpole")
    run.save_config({"algo": "dqn", "lr": 1e-3})
    logger = MetricsLogger(run.log_path())
    for step in range(0, 100_000, 1000):
        loss, reward = jnp.float32(1 / (step + 1)), float(step)
        logger.write({"step": step, "loss": loss, "reward": reward})
        log_step_progress(step, 100_000, metrics={"loss": loss, "reward": reward})
    logger.close()
    records = read_metrics(run.log_path())
    assert len(records) == 100
    assert records[-1]["reward"] == 99_000.0
    assert run.load_config() == {"algo": "dqn", "lr": 1e-3}

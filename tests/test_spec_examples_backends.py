"""The guide's examples of backends, with the real libraries, compared with the metrics file."""

import logging
import math
import re

import jax
import jax.numpy as jnp
import pytest
import wandb
from service_files import (
    start_times,
    tensorboard_scalars,
    wandb_files,
    wandb_records,
    wandb_rows,
)

from vibe_rl.metrics import (
    MetricsLogger,
    TensorBoardBackend,
    WandbBackend,
    log_step_progress,
    read_metrics,
    resume_wandb,
    setup_logging,
)
from vibe_rl.run_dir import RunDir


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in {"mode": "offline", "silent": True, "root_dir": str(tmp_path)}.items():
        # As WANDB_MODE and so on in the environment, which W&B reads once in a process.
        monkeypatch.setattr(wandb.setup().settings, name, value)
    yield
    wandb.finish()


def assert_wandb_has(records, rows, start):
    """Every record is a row, in order, with the time at which it was written."""
    assert len(rows) == len(records)
    for record, row in zip(records, rows, strict=True):
        assert row.pop("_timestamp") == pytest.approx(start + record["wall_time"], abs=1e-5)
        del row["_step"], row["_runtime"]
        assert row == record


def assert_tensorboard_has(records, scalars, start):
    """Every number of every record is a point, in order, at its step and time."""
    for tag in {name for record in records for name in record}:
        having = [record for record in records if isinstance(record.get(tag), int | float)]
        points = scalars.pop(tag, [])
        assert [step for _, step, _ in points] == [record["step"] for record in having]
        times = [start + record["wall_time"] for record in having]
        assert [time for time, _, _ in points] == pytest.approx(times, abs=1e-5)
        numbers = [record[tag] for record in having]
        assert [number for _, _, number in points] == pytest.approx(numbers, rel=1e-6, nan_ok=True)
    assert not scalars


def test_the_wandb_example(tmp_path):
    run = RunDir("dqn_cartpole")
    config = {"algo": "dqn", "lr": 1e-3}
    backend = WandbBackend(project="rl", entity="my-team", config=config, run_dir=run.root)
    logger = MetricsLogger(run.log_path(), backends=[backend])
    for step in range(0, 50_000, 1000):
        logger.write({"step": step, "loss": jnp.float32(1 / (step + 1)), "phase": "train"})
    logger.close()

    (file,) = wandb_files(tmp_path)
    assert_wandb_has(read_metrics(run), wandb_rows(file), *start_times(run.log_path()))
    (of_run,) = (record.run for record in wandb_records(file) if record.HasField("run"))
    assert (of_run.project, of_run.entity) == ("rl", "my-team")
    assert (run.root / "wandb_id.txt").read_text() == of_run.run_id


def test_the_tensorboard_example():
    run = RunDir("dqn_cartpole")
    backend = TensorBoardBackend(log_dir=run.logs)
    logger = MetricsLogger(run.log_path(), backends=[backend])
    for step in range(0, 50_000, 1000):
        loss = math.nan if step == 7000 else 1 / (step + 1)
        logger.write({"step": step, "loss": jnp.float32(loss), "episodes": step // 200})
        logger.write({"step": step, "phase": "eval", "reward": 195.0})
    logger.close()
    assert_tensorboard_has(
        read_metrics(run), tensorboard_scalars(run.logs), *start_times(run.log_path())
    )


def test_the_example_of_combined_backends(tmp_path):
    run = RunDir("dqn_cartpole")
    logger = MetricsLogger(
        run.log_path(),
        backends=[
            WandbBackend(project="rl", run_dir=run.root),
            TensorBoardBackend(log_dir=run.logs),
        ],
    )
    for step in range(200):
        logger.write({"step": step, "loss": 1 / (step + 1)})
    logger.close()
    (file,) = wandb_files(tmp_path)
    (start,) = start_times(run.log_path())
    assert_wandb_has(read_metrics(run), wandb_rows(file), start)
    assert_tensorboard_has(read_metrics(run), tensorboard_scalars(run.logs), start)


def test_the_workflow_of_resuming(tmp_path, monkeypatch):
    asked = []
    init = wandb.init
    monkeypatch.setattr(wandb, "init", lambda **kwargs: asked.append(kwargs) or init(**kwargs))
    run_id = "dqn_cartpole_20260215_143022"
    first = WandbBackend(project="rl", run_dir=RunDir(run_id=run_id).root)
    with MetricsLogger(RunDir(run_id=run_id).log_path(), backends=[first]) as logger:
        logger.write({"step": 49_000, "loss": 0.13, "reward": 190.0})

    run = RunDir(run_id=run_id)
    backend = resume_wandb(run.root, project="rl")
    logger = MetricsLogger(run.log_path(), backends=[backend])
    logger.write({"step": 50_000, "loss": 0.12, "reward": 200.0})
    logger.close()

    assert (asked[1]["id"], asked[1]["resume"]) == (first.run_id, "must")
    assert backend.run_id == first.run_id == (run.root / "wandb_id.txt").read_text()
    records = read_metrics(run.log_path())
    assert [record["step"] for record in records] == [49_000, 50_000]
    parts = zip(records, wandb_files(tmp_path), start_times(run.log_path()), strict=True)
    for record, file, start in parts:
        assert_wandb_has([record], wandb_rows(file), start)


def test_the_complete_example(tmp_path, capsys):
    loss_at = jax.jit(lambda step: 1.0 / (step + 1.0))
    setup_logging()
    try:
        run = RunDir("dqn_cartpole")
        run.save_config({"algo": "dqn", "lr": 1e-3})
        config = {"algo": "dqn", "lr": 1e-3}
        backend = WandbBackend(project="rl", config=config, run_dir=run.root)
        logger = MetricsLogger(run.log_path(), backends=[backend])
        for step in range(0, 100_000, 1000):
            loss = loss_at(step)
            reward = 200.0 - step / 1000
            logger.write({"step": step, "loss": loss, "reward": reward})
            log_step_progress(step, 100_000, metrics={"loss": loss, "reward": reward})
        logger.close()
    finally:
        logging.getLogger("vibe_rl").handlers.clear()

    records = read_metrics(run.log_path())
    assert len(records) == 100
    assert records[-1]["reward"] == 101.0
    shown = capsys.readouterr().err
    assert re.search(
        r"^I .* \[vibe_rl\] step 99000/100000 \(99\.0%\) \| loss=", shown, re.MULTILINE
    )
    (file,) = wandb_files(tmp_path)
    assert_wandb_has(records, wandb_rows(file), *start_times(run.log_path()))

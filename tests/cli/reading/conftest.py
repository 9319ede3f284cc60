"""Runs for the commands that read them."""

import pytest
from three_runs import CRASHED, FINISHED, RECORDS, RUNNING

from vibe_rl.metrics import MetricsLogger
from vibe_rl.run_dir import RunDir


@pytest.fixture(autouse=True)
def running(tmp_path, monkeypatch):
    """Three runs, of which one goes on: its logger."""
    monkeypatch.chdir(tmp_path)
    with MetricsLogger(RunDir(run_id=FINISHED)) as logger:
        for record in RECORDS:
            logger.write(record)
    with pytest.raises(ZeroDivisionError), MetricsLogger(RunDir(run_id=CRASHED)) as logger:
        logger.write({"step": 7, "loss": float("nan"), "grad": {"norm": 2.0}})
        raise ZeroDivisionError
    with MetricsLogger(RunDir(run_id=RUNNING)) as logger:
        yield logger


@pytest.fixture
def job():
    """A run of a job of two processes, each with a file of its own."""
    run = RunDir(run_id="job")
    for process, path in enumerate([run.log_path(), run.log_path("metrics.p1.jsonl")]):
        with MetricsLogger(path) as logger:
            for step in range(5):
                loss = float("nan") if (process, step) == (1, 3) else step + 10.0 * process
                logger.write({"step": step, "process": process, "loss": loss})
    return run


@pytest.fixture
def sparse(monkeypatch):
    """A run of two processes whose files are sampled, in which few records have some metrics."""
    monkeypatch.setattr("vibe_rl.cli.show._MOST_BYTES", 1 << 16)
    run = RunDir(run_id="sparse")
    odd = {"eval_return": 0.0, "train": {"return": 9.0}, "eval": "none"}
    rare = {
        0: {step: {"eval": {"return": 2.0}} for step in range(9_000, 30_000, 5)},
        1: {8_000: {"eval": {"return": 1.0}}, 31_000: {"eval/return": 3.0}},
    }
    rare[0][31_001] = {"late": float("nan")}
    for process, path in enumerate([run.log_path(), run.log_path("metrics.p1.jsonl")]):
        with MetricsLogger(path) as logger:
            for step in range(40_000):
                logger.write({"step": step, **odd, **rare[process].get(step, {})})
    return run

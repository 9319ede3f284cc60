"""A run as it grows, whatever its records hold."""

import math

import pytest

from vibe_rl.cli.watching.live_run import LiveRun
from vibe_rl.metrics import MetricsLogger
from vibe_rl.run_dir import RunDir


def test_a_step_that_is_not_finite_is_passed_over(tmp_path):
    run = RunDir("dqn", tmp_path)
    with MetricsLogger(run) as logger:
        for step in (0, math.nan, 2, math.inf):
            logger.write({"step": step, "loss": 1.0})
    live = LiveRun(run.root)
    assert live.look()
    assert live.step == 2
    assert live.curves("loss", "step")[""][0].tolist() == [0, 2]
    assert len(live.curves("loss", "wall_time")[""][0]) == 4


def test_the_fraction_is_of_all_that_has_been_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLogger(path) as logger:
        write(logger, 2000)
        live = LiveRun(path, most_bytes=1 << 15)
        live.look()
        assert live.fraction == pytest.approx((1 << 15) / live.bytes, rel=0.5)
        for _ in range(20):
            write(logger, 400)
            live.look()
        taken = len(live.curves("loss", "step")[""][0])
        assert live.fraction == pytest.approx(taken / 10_000, rel=0.05)
        assert live.bytes == path.stat().st_size


def write(logger, count):
    start = logger.stats.written
    logger.write_batch({"step": range(start, start + count), "loss": [1.0] * count})
    assert logger.flush()


def test_the_time_of_a_resumed_run_goes_on_for_each_seed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    walls = (0.0, 50.0, 100.0, 0.0, 50.0)
    with MetricsLogger(path) as logger:
        for step, wall in enumerate(walls):
            for seed in range(2):
                # Two loggers' records, one after the other, are no two resumptions each time.
                record = {"step": step, "seed": seed, "wall_time": wall + 1000 * seed, "loss": 1.0}
                logger.write(record)
    live = LiveRun(path)
    live.look()
    curves = live.curves("loss", "wall_time")
    assert curves["seed 0"][0].tolist() == [0, 50, 100, 100, 150]

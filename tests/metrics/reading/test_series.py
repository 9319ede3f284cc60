"""What a plot draws of a file, whatever has happened to it."""

import math

import numpy as np
import pytest

from vibe_rl.metrics import MetricsLogger
from vibe_rl.metrics.reading.series import numeric_metrics, read_series


def test_a_metric_that_few_records_have_has_no_gaps_but_its_nans(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLogger(path) as logger:
        for step in range(100):
            evaluation = {"eval": {"return": math.nan if step == 50 else step}}
            logger.write({"step": step, "loss": 0.5} | (evaluation if step % 10 == 0 else {}))
    series = read_series(path, ["eval/return", "loss", "none"])
    assert set(series) == {"eval/return", "loss"}
    returns = series["eval/return"]
    assert returns.x.tolist() == list(range(0, 100, 10))
    np.testing.assert_array_equal(returns.y, [*range(0, 50, 10), math.nan, *range(60, 100, 10)])


def test_eight_seeds_in_one_file_are_eight_curves(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLogger(path) as logger:
        for step in range(20):
            for seed in range(8):
                logger.write({"step": step, "seed": seed, "return": seed * 100 + step})
        logger.write({"step": 20, "return": -1})  # of no seed
    curves = read_series(path, ["return"])["return"].curves()
    assert list(curves) == list(range(8))
    assert all((y == seed * 100 + x).all() and len(x) == 20 for seed, (x, y) in curves.items())


def test_the_newest_of_repeated_steps_counts(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLogger(path) as logger:
        for attempt, steps in enumerate((range(10), range(5, 15))):
            for step in steps:
                logger.write({"step": step, "attempt": attempt})
    with path.open("ab") as file:
        file.write(b'{"step": 15, "attem')
    x, y = read_series(path, ["attempt"])["attempt"].curves()[None]
    assert x.tolist() == list(range(15))
    assert y.tolist() == [0] * 5 + [1] * 10


def test_without_steps_records_are_counted(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLogger(path) as logger:
        logger.write_batch({"loss": np.arange(30_000.0)})
    series = read_series(path, ["loss"])["loss"]
    assert (series.x == series.y).all()
    sample = read_series(path, ["loss"], most_bytes=200_000)["loss"]
    assert 0.05 < sample.fraction < 0.9
    assert sample.x[-1] <= 31_000  # about
    assert (np.diff(sample.x) > 0).all()
    assert read_series(path, ["loss"], x="wall_time")["loss"].x[0] > 0
    assert read_series(path, ["loss"], x="none") == {}
    assert read_series(tmp_path / "none", ["loss"]) == {}


def test_numeric_metrics_are_named_cheaply(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLogger(path) as logger:
        logger.write({"step": 0, "text": "x", "eval": {"return": 1.0}, "list": [1, 2]})
        logger.write({"step": 1, "loss": math.nan})
    assert numeric_metrics(path) == ["step", "eval/return", "wall_time", "loss"]


@pytest.mark.parametrize("most_bytes", [None, 1 << 20])
def test_of_a_job_each_process_file_is_read_and_the_first_one_counts(tmp_path, most_bytes):
    for process, name in enumerate(["metrics.jsonl", "metrics.p1.jsonl"]):
        lines = [f'{{"step":{step},"process":{process},"loss":{process}.5}}\n' for step in range(3)]
        (tmp_path / name).write_text("".join(lines[process:]) + '{"step":9,"own":1}\n' * process)
    path = tmp_path / "metrics.jsonl"
    series = read_series(path, ["loss", "own"], most_bytes=most_bytes)
    assert [column.tolist() for column in series["loss"].curves()[None]] == [[0, 1, 2], [0.5] * 3]
    assert series["own"].y.tolist() == [1]
    assert "own" in numeric_metrics(path)

"""What a plot draws of a file, whatever has happened to it."""

import json
import math

import numpy as np
import pytest

from vibe_rl.metrics import MetricsLogger, read_metrics
from vibe_rl.metrics.reading.fields import label_of
from vibe_rl.metrics.reading.series import ascending, numeric_fields, read_series
from vibe_rl.metrics.reading.tail import most_of_each


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
    assert [column.tolist() for column in curves.pop("")] == [[20], [-1]]
    assert list(curves) == [f"seed {seed}" for seed in range(8)]
    assert all(
        (y == s * 100 + x).all() and len(x) == 20 for s, (x, y) in enumerate(curves.values())
    )


def test_the_newest_of_repeated_steps_counts(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLogger(path) as logger:
        for attempt, steps in enumerate((range(10), range(5, 15))):
            for step in steps:
                logger.write({"step": step, "attempt": attempt})
    with path.open("ab") as file:
        file.write(b'{"step": 15, "attem')
    x, y = read_series(path, ["attempt"])["attempt"].curves()[""]
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


def test_numeric_fields_are_named_cheaply(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLogger(path) as logger:
        logger.write({"step": 0, "text": "x", "eval": {"return": 1.0}, "list": [1, 2]})
        logger.write({"step": 1, "loss": math.nan})
    assert numeric_fields(path) == ["step", "eval/return", "wall_time", "loss"]


@pytest.mark.parametrize("most_bytes", [None, 1 << 20])
def test_of_a_job_each_process_is_a_curve_and_without_labels_the_first_one_counts(
    tmp_path, most_bytes
):
    for process, name in enumerate(["metrics.jsonl", "metrics.p1.jsonl"]):
        lines = [
            f'{{"step":{step},"process":{process},"loss":{process}.5}}\n{{"step":{step},"bare":{process}}}\n'
            for step in range(3)
        ]
        (tmp_path / name).write_text("".join(lines[process:]) + '{"step":9,"own":1}\n' * process)
    path = tmp_path / "metrics.jsonl"
    series = read_series(path, ["loss", "own", "bare"], most_bytes=most_bytes)
    curves = series["loss"].curves()
    assert curves.keys() == {"process 0", "process 1"}
    assert [column.tolist() for column in curves["process 0"]] == [[0, 1, 2], [0.5] * 3]
    assert [column.tolist() for column in curves["process 1"]] == [[1, 2], [1.5] * 2]
    assert [column.tolist() for column in series["bare"].curves()[""]] == [[0, 1, 2], [0] * 3]
    assert series["own"].y.tolist() == [1]
    assert "own" in numeric_fields(path)


def write_lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_text_among_numbers_is_passed_over(tmp_path):
    losses = [1, "bad", 3.5, None, True, [1]]
    records = [{"step": step, "loss": loss} for step, loss in enumerate(losses)]
    path = write_lines(tmp_path / "a.jsonl", [*records, {"step": "six", "loss": 6}])
    x, y = read_series(path, ["loss"])["loss"].curves()[""]
    assert (x.tolist(), y.tolist()) == ([0, 2, 4], [1, 3.5, 1])


def test_a_step_that_is_not_finite_is_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLogger(path) as logger:
        for step in (0, math.nan, 2, math.inf):
            logger.write({"step": step, "loss": 1.0})
    assert read_series(path, ["loss"])["loss"].x.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["a", "b", "a"], ["seed a", "seed b"]),
        ([0, 0.5, 0], ["seed 0", "seed 0.5"]),
        ([math.nan, 1, math.nan], ["seed 1", "seed nan"]),
        ([1, "1.0", 1.0], ["seed 1", "seed 1.0"]),
        ([[1], None, {}], ["", "seed [1]"]),
    ],
)
@pytest.mark.filterwarnings("error")
def test_any_seed_is_a_label_that_is_the_same_in_watch(tmp_path, values, labels):
    path = tmp_path / "metrics.jsonl"
    records = [{"step": n, "loss": n, "seed": seed} for n, seed in enumerate(values)]
    with MetricsLogger(path) as logger:
        for record in records:
            logger.write(record)
    assert sorted(read_series(path, ["loss"])["loss"].curves()) == labels
    assert sorted({label_of(record) for record in read_metrics(path)}) == labels


def test_lanes_and_seeds_together_are_a_curve_for_each_pair(tmp_path):
    records = [
        {"step": step, "seed": seed, "lane": lane, "loss": 10 * seed + lane}
        for step in range(3)
        for seed in range(2)
        for lane in range(2)
    ]
    curves = read_series(write_lines(tmp_path / "a.jsonl", records), ["loss"])["loss"].curves()
    assert {text: y.tolist() for text, (_, y) in curves.items()} == {
        f"seed {seed} lane {lane}": [10 * seed + lane] * 3 for seed in range(2) for lane in range(2)
    }


def test_the_time_of_a_resumed_run_goes_on_for_each_of_its_curves(tmp_path):
    records = [
        {"step": step, "seed": seed, "wall_time": wall, "loss": step}
        for step, wall in ((0, 0.0), (1, 50.0), (2, 100.0), (3, 0.0), (4, 50.0))
        for seed in range(2)
    ]
    path = write_lines(tmp_path / "a.jsonl", records)
    for x, y in read_series(path, ["loss"], x="wall_time")["loss"].curves().values():
        assert x.tolist() == [0, 50, 100, 100, 150]
        assert y.tolist() == [0, 1, 2, 3, 4]


def test_the_fraction_is_that_of_all_files(tmp_path):
    line = json.dumps({"step": 1, "loss": 1.0, "text": "x" * 900}) + "\n"
    (tmp_path / "metrics.jsonl").write_text(line * 1000)
    (tmp_path / "metrics.p1.jsonl").write_text(line)
    series = read_series(tmp_path / "metrics.jsonl", ["loss"], most_bytes=100_000)["loss"]
    assert 0.05 < series.fraction < 0.2
    assert series.fraction == pytest.approx(len(series.x) / 1001, rel=0.05)


def test_most_of_each_leaves_small_files_whole(tmp_path):
    sizes = [100, 300, 5000, 9000]
    files = [tmp_path / str(size) for size in sizes]
    for file, size in zip(files, sizes, strict=True):
        file.write_bytes(b"x" * size)
    files.append(tmp_path / "none")
    assert most_of_each(files, 2400) == 1000
    assert most_of_each(files, 14_400) is None
    assert most_of_each(files, None) is None


def test_points_are_ordered_the_newest_at_each_place():
    x = np.array([2.0, 1.0, 2.0, 0.0])
    assert ascending(x).tolist() == [3, 1, 2]
    assert ascending(x, repeated=True).tolist() == [3, 1, 0, 2]
    assert ascending(np.empty(0)).tolist() == []

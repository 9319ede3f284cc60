"""`vibe-rl runs`: the list of running, finished and broken runs."""

import json
import re

import pytest
from three_runs import CRASHED, FINISHED, RUNNING, lines

from vibe_rl.cli import main
from vibe_rl.cli.overview import overview
from vibe_rl.metrics import MetricsLogger
from vibe_rl.run_dir import RunDir


def test_runs_are_listed_the_newest_last(capsys):
    header, *rows = lines(capsys, "runs")
    assert header.split() == ["state", "age", "step", "steps/s", "return", "trend", "size", "run"]
    assert [(row.split()[0], row.split()[-1]) for row in rows] == [
        ("finished", FINISHED),
        ("crashed", CRASHED),
        ("running", RUNNING),
    ]
    assert re.search(r" 2000 +200 +20 ▁\S{6}█ +[\d.]+k ", rows[0])


@pytest.mark.parametrize(
    ("args", "found"),
    [
        (["ppo"], [FINISHED, CRASHED]),
        (["*13*"], [CRASHED]),
        (["--state", "running"], [RUNNING]),
        (["-n", "1"], [RUNNING]),
        (["--sort", "name"], [RUNNING, FINISHED, CRASHED]),
        (["--sort", "return"], [CRASHED, RUNNING, FINISHED]),
        (["--sort", "step", "-n", "2"], [CRASHED, FINISHED]),
    ],
)
def test_runs_are_filtered_and_sorted(capsys, args, found):
    rows = [json.loads(line)["run"] for line in lines(capsys, "runs", "--json", *args)]
    assert sorted(rows) == sorted(found)
    assert rows == found or "return" in args  # of two without a return, either may come first


def test_runs_as_json_have_exact_values(capsys):
    row = json.loads(lines(capsys, "runs", "--json")[0])
    assert (row["state"], row["how"], row["step"]) == ("finished", "closed", 2000)
    assert row["last"] == 20.0
    assert row["trend"] == [float(i) for i in range(1, 21)]
    assert row["bytes"] == RunDir(run_id=FINISHED).log_path().stat().st_size


def test_another_metric_is_shown_on_demand(capsys):
    row = json.loads(lines(capsys, "runs", "--json", "--metric", "grad/norm")[1])
    assert (row["metric"], row["last"]) == ("grad/norm", 2.0)


def test_the_speed_of_a_resumed_run_is_that_of_its_last_logger():
    with MetricsLogger(RunDir(run_id=FINISHED)) as logger:
        for i in range(5):
            logger.write({"step": 2000 + 10 * i, "wall_time": float(i)})
    assert overview(RunDir(run_id=FINISHED)).steps_per_second == 10.0


def test_the_speed_step_and_value_are_those_of_the_end_however_long_the_run(tmp_path):
    run = RunDir(run_id="ppo_20260101_150000")
    slow = 100  # of so many records, ten times as slow, at the end of a long file
    with MetricsLogger(run) as logger:
        for i in range(20_000):
            late = max(i - (20_000 - slow), 0)
            logger.write({"step": i, "wall_time": (i + 9 * late) / 100, "loss": 0.5})
        end = (20_000 + 9 * slow) / 100
        logger.write({"step": 20_000, "wall_time": end, "eval_return_mean": 7.0})
        logger.write({"wall_time": end, "loss": 0.25})
    seen = overview(run, "eval_return_mean")
    assert seen.steps_per_second == pytest.approx(10.0)
    assert (seen.step, seen.last) == (20_000, 7.0)


def test_a_list_without_runs_is_no_error_and_says_whether_there_are_others(capsys, tmp_path):
    (tmp_path / "none").mkdir()
    assert main(["runs", "--base-dir", "none"]) == 0
    assert "there is no run in none; `vibe-rl train` starts one" in capsys.readouterr().err
    assert main(["runs", "zzz"]) == 0
    assert capsys.readouterr().err == "none of 3 runs in runs is one of these\n"


def test_a_run_that_cannot_be_read_hides_no_other(capsys):
    writers = RunDir(run_id=CRASHED).log_path("metrics.writers.jsonl")
    writers.unlink()
    writers.mkdir()
    _, *rows = lines(capsys, "runs")
    assert [row.split()[0] for row in rows] == ["finished", "unreadable", "running"]
    assert "metrics.writers.jsonl" in rows[1]
    row = json.loads(lines(capsys, "runs", "--json", "--state", "unreadable")[0])
    assert (row["run"], row["step"], row["bytes"]) == (CRASHED, None, 0)


def test_a_metric_of_a_mapping_that_few_records_have_is_the_return(capsys):
    with MetricsLogger(RunDir(run_id="sparse")) as logger:
        for step in range(20):
            logger.write({"step": step} | ({"eval": {"return": step}} if step % 5 == 0 else {}))
    row = json.loads(lines(capsys, "runs", "--json", "sparse")[0])
    assert (row["metric"], row["last"]) == ("eval/return", 15.0)

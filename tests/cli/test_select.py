"""Which run a user means."""

import pytest

from vibe_rl.cli import UsageError
from vibe_rl.cli.select import find_run, run_name
from vibe_rl.run_dir import RunDir

PPO, DQN, SECOND = "ppo_20260101_120000", "dqn_20260101_130000", "dqn_20260101_140000"


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for run_id in (SECOND, PPO, DQN):
        RunDir(run_id=run_id).log_path().touch()
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("name", "run_id"),
    [
        ("latest", SECOND),
        (PPO, PPO),
        ("p", PPO),
        ("dqn_20260101_13", DQN),
        (f"runs/{PPO}", PPO),
        (f"runs/{PPO}/", PPO),
        (f"runs/{PPO}/logs", PPO),
        (f"runs/{PPO}/logs/metrics.jsonl", PPO),
    ],
)
def test_a_run_is_found_by_path_id_beginning_or_latest(name, run_id, runs):
    path = find_run(name)
    assert path.resolve() == runs / run_id
    assert run_name(path) == run_id


def test_a_whole_id_that_begins_another_is_that_run():
    RunDir(run_id=f"{PPO}_2")
    assert find_run(PPO).name == PPO
    with pytest.raises(UsageError, match=f"begins 2 runs: {PPO}_2, {PPO}; give more"):
        find_run("ppo")


def test_a_metrics_file_of_its_own_is_a_run(tmp_path, monkeypatch):
    (tmp_path / "alone.jsonl").touch()
    assert run_name(find_run("alone.jsonl")) == "alone.jsonl"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "metrics.jsonl").touch()
    assert run_name(find_run("elsewhere")) == "elsewhere/metrics.jsonl"
    monkeypatch.chdir(tmp_path / "runs" / PPO)
    assert run_name(find_run("logs/metrics.jsonl")) == PPO
    monkeypatch.chdir("logs")
    assert run_name(find_run("metrics.jsonl")) == PPO


def test_a_run_in_another_base_directory(tmp_path):
    RunDir(run_id="a", base_dir="other")
    assert find_run("a", "other") == tmp_path / "other" / "a"


def test_a_directory_here_that_is_no_run_does_not_hide_one(tmp_path):
    (tmp_path / "ppo").mkdir()
    assert find_run("ppo").name == PPO


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dqn", f"'dqn' begins 2 runs: {SECOND}, {DQN}; give more of one"),
        ("qn_20260101_14", f"'qn_20260101_14' is no run in runs; near it: {SECOND}"),
        ("ppo_20260101_120001", f"near it: {PPO}"),
        ("sac", f"'sac' is no run in runs; there are: {SECOND}, {DQN}, {PPO}"),
        ("", "'' is no run in runs; there are"),
        ("runs/none", "'runs/none' is no run: there is no such file or directory"),
        ("./", "'./' is no run: it has no directory logs"),
    ],
)
def test_what_is_not_found_is_said_with_what_comes_near(name, message):
    with pytest.raises(UsageError) as error:
        find_run(name)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("base_dir", "message"),
    [
        ("none", "there is no run in none; --base-dir says where runs are"),
        ("s3://bucket", "must be a local directory"),
        ("file", "file"),
    ],
)
def test_a_base_directory_without_runs_is_said(base_dir, message, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=message):
        find_run("latest", base_dir)

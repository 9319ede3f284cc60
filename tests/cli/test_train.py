"""`vibe-rl train`: options, what it prints, and how it stops."""

import dataclasses
import json
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest

from vibe_rl.cli import main
from vibe_rl.metrics import read_metrics
from vibe_rl.run_dir import RunDir, find_runs
from vibe_rl.runner import PPOConfig

# No field at its default.
CONFIG = PPOConfig(
    env_id="MountainCar-v0",
    total_timesteps=120,
    seed=7,
    num_seeds=1,
    log_interval=40,
    eval_interval=60,
    eval_episodes=3,
    checkpoint_interval=50,
    keep_checkpoints=1,
    num_envs=4,
    num_steps=5,
    update_epochs=1,
    num_minibatches=2,
    learning_rate=3e-3,
    anneal_learning_rate=False,
    gamma=0.9,
    gae_lambda=0.8,
    clip_epsilon=0.1,
    clip_value_loss=True,
    entropy_coef=0.0,
    value_coef=1.0,
    max_grad_norm=1.0,
    normalize_advantage=False,
    scale_rewards=False,
    hidden_sizes=(8, 4),
    activation="relu",
)


def as_options(config):
    options = []
    for name, value in dataclasses.asdict(config).items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            options.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            values = value if isinstance(value, tuple) else (value,)
            options += [f"--{flag}", *map(str, values)]
    return options


def test_every_setting_is_an_option_and_the_run_goes_on_with_all_of_them(
    tmp_path, monkeypatch, capfd
):
    assert set(vars(CONFIG).items()) & set(vars(PPOConfig()).items()) == {("num_seeds", 1)}
    monkeypatch.chdir(tmp_path)

    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    assert main(["train", "ppo", *as_options(CONFIG), "--experiment-name", "my run"]) == 0
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers

    (run,) = find_runs(tmp_path / "runs")
    assert run.run_id.startswith("my run_")
    assert PPOConfig(**run.load_config()) == CONFIG
    assert [record["step"] for record in read_metrics(run) if "entropy" in record] == [40, 80, 120]

    out, err = capfd.readouterr()
    assert f"Run directory: runs/{run.run_id}\n" in out
    assert re.search(r"^Final return:  (nan|-[0-9.]+) ", out, re.MULTILINE)
    command = shlex.split(re.search(r"^Last record:   (.*)$", out, re.MULTILINE)[1])
    assert json.loads(subprocess.check_output(command))["step"] == 120
    assert "metrics.jsonl" in err  # where to look while it runs
    assert "step 120/120 (100.0%)" in err  # the progress, off a terminal

    assert main(["train", "--resume", "my run", "--total-timesteps", "200"]) == 0
    assert find_runs(tmp_path / "runs") == [run]
    assert PPOConfig(**run.load_config()) == dataclasses.replace(CONFIG, total_timesteps=200)
    records = [record for record in read_metrics(run) if "entropy" in record]
    assert [record["step"] for record in records] == [40, 80, 120, 160, 200]


def test_what_is_no_run_of_an_algorithm_does_not_go_on(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    RunDir(run_id="mine").save_config({"lr": 1})
    for args, message in (
        (["latest"], "its config is of no algorithm"),
        (["elsewhere"], "'elsewhere' is no run in runs"),
    ):
        assert main(["train", "--resume", *args]) == 2
        assert message in capfd.readouterr().err


def test_a_run_that_is_damaged_does_not_go_on_and_says_so_in_a_line(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    run, saved = RunDir(run_id="mine"), dataclasses.asdict(CONFIG)
    run.checkpoint_dir(40).mkdir()

    def refused():
        capfd.readouterr()
        assert main(["train", "--resume", "mine", "--no-tensorboard"]) == 2
        return capfd.readouterr().err.splitlines()[-1]

    for wrong in ({"hidden_sizes": 64}, {"env_id": 5}, {"total_timesteps": "many"}):
        run.save_config(saved | wrong)
        assert re.fullmatch(f"vibe-rl: error: {next(iter(wrong))} must be .*", refused())
    (run.root / "config.json").write_text("[1]")
    assert "config.json is no valid config: a config is a JSON object" in refused()
    run.save_config(saved)
    assert re.fullmatch("vibe-rl: error: .* is no checkpoint that .*", refused())


SMALL_OFF_POLICY = [
    *("--total-timesteps", "64", "--log-interval", "32", "--eval-interval", "0"),
    *("--learning-starts", "16", "--batch-size", "8", "--hidden-sizes", "8"),
]


def test_sac_trains_and_goes_on(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    where = ["--no-tensorboard", "--base-dir", "elsewhere"]
    assert main(["train", "sac", *SMALL_OFF_POLICY, *where]) == 0
    assert main(["train", "--resume", "latest", "--total-timesteps", "96", *where]) == 0
    (run,) = find_runs(tmp_path / "elsewhere")
    assert run.run_id.startswith("sac_Pendulum-v1_")
    assert [(record["step"], "alpha" in record) for record in read_metrics(run)] == [
        *((32, True), (64, True), (96, True))
    ]


def test_dqn_trains_seeds_side_by_side_with_a_tensorboard_directory_each(
    tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "dqn", *SMALL_OFF_POLICY, "--num-seeds", "2", "--seed", "3"]) == 0
    (run,) = find_runs(tmp_path / "runs")
    assert run.run_id.startswith("dqn_CartPole-v1_")
    assert sorted(record["seed"] for record in read_metrics(run)) == [3, 3, 4, 4]
    assert {path.parent.name for path in run.logs.glob("*/events.*")} == {"seed-3", "seed-4"}

    # Annealed, so that nothing may be added; and no run becomes shorter.
    for steps, message in (("96", "it can't be made longer"), ("32", "total_timesteps=64, not 32")):
        capfd.readouterr()
        assert main(["train", "--resume", "latest", "--total-timesteps", steps]) == 2
        err = capfd.readouterr().err
        assert re.fullmatch(r"vibe-rl: error: .*\n", err)
        assert message in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--env-id", "Cartpole"], "unknown environment 'Cartpole'; gymnax has CartPole-v1"),
        (["--num-minibatches", "7"], "1000 steps can't be cut into num_minibatches = 7"),
        (["--gamma", "2"], "gamma must be between 0.0 and 1.0, not 2.0"),
        (["--experiment-name", "a/b"], "'a/b'"),
        (["--base-dir", "s3://bucket"], "'s3://bucket'"),
        (["--base-dir", "~nosuchuser"], "got '~nosuchuser'"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    options, message, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "ppo", *options]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(r"vibe-rl: error: .*\n", err)
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_wandb_without_a_login_is_one_line_and_leaves_no_run(tmp_path, monkeypatch, capfd):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no ~/.netrc
    monkeypatch.chdir(tmp_path)
    assert main(["train", "ppo", "--wandb", "--wandb-mode", "online"]) == 2
    assert re.fullmatch(r"vibe-rl: error: .*", capfd.readouterr().err.splitlines()[-1])
    assert find_runs("runs") == []


def test_a_base_directory_that_is_a_file_is_one_line(tmp_path, capfd):
    file = tmp_path / "runs"
    file.touch()
    assert main(["train", "ppo", "--base-dir", str(file)]) == 1
    assert re.fullmatch(rf"vibe-rl: error: .*{file}.*\n", capfd.readouterr().err)


@pytest.mark.parametrize(
    ("shell", "signals", "code", "message"),
    [
        ("", [signal.SIGTERM, signal.SIGTERM], 143, "vibe-rl: stopped by SIGTERM"),
        ("", [signal.SIGINT], 130, "vibe-rl: stopped by Ctrl-C"),
        # As a script starts a job in the background, which Ctrl-C is not for.
        ("trap '' INT;", [signal.SIGINT, signal.SIGTERM], 143, "vibe-rl: stopped by SIGTERM"),
    ],
)
def test_a_stopped_run_ends_cleanly_and_keeps_every_record(shell, signals, code, message, tmp_path):
    # As little to compile as may be, which takes most of the time.
    endless = dataclasses.replace(CONFIG, total_timesteps=10**9, eval_interval=0, hidden_sizes=(8,))
    args = [sys.executable, "-m", "vibe_rl.cli", "train", "ppo", *as_options(endless)]
    process = subprocess.Popen(
        ["/bin/sh", "-c", f'{shell} exec "$@"', "sh", *args],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while process.poll() is None and not any(
            len(read_metrics(run)) > 3 for run in find_runs(tmp_path / "runs")
        ):
            time.sleep(0.05)
        for signum in signals:
            process.send_signal(signum)
        _, err = process.communicate()
    finally:
        process.kill()

    assert process.returncode == code
    assert err.splitlines()[-1] == message
    assert "Traceback" not in err
    (run,) = find_runs(tmp_path / "runs")
    assert run.run_id.startswith("ppo_MountainCar-v0_")  # called after what it trains
    records = [json.loads(line) for line in run.log_path().read_text().splitlines()]
    steps = [record["step"] for record in records if "entropy" in record]
    assert steps == list(range(40, 40 * len(steps) + 1, 40))
    opened, closed = run.log_path("metrics.writers.jsonl").read_text().splitlines()
    assert json.loads(opened)["event"] == "open"
    assert json.loads(closed)["event"] == "close"  # the logger got to its end

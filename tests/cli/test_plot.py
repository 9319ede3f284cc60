"""`vibe-rl plot`."""

import math

import pytest

from vibe_rl.cli import main
from vibe_rl.metrics import MetricsLogger
from vibe_rl.run_dir import RunDir


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = []
    for name in ("ppo", "ppo", "dqn"):
        made.append(RunDir(name))
        made[-1].save_config({"lr": 0.1})
        with MetricsLogger(made[-1]) as logger:
            for step in range(20):
                logger.write(
                    {"step": step, "episode_return": math.sqrt(step), "loss": 1 / (step + 1)}
                )
    return made


def test_a_plot_of_runs_by_id_path_pattern_and_latest(tmp_path, runs, capsys):
    for nth, names in enumerate((["latest"], ["ppo_*"], [str(runs[2].root), runs[0].run_id])):
        assert main(["plot", *names, "-o", f"{nth}.png"]) == 0
        assert (tmp_path / f"{nth}.png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "0.png: episode_return of 1 run"
    assert said[1] == "1.png: episode_return of 2 runs"


def test_options_reach_the_plot(tmp_path, capsys):
    options = "--metric loss --group lr --center iqm --band none --smooth 3 --log-y --x step"
    assert main(["plot", "*", "--output", "plots/a.svg", *options.split()]) == 0
    text = (tmp_path / "plots" / "a.svg").read_text()
    assert "<svg" in text
    assert capsys.readouterr().out.startswith("plots/a.svg: loss of 3 runs")


def test_what_is_left_out_is_said_and_not_counted(tmp_path, capsys):
    with MetricsLogger(RunDir("sac")) as logger:
        logger.write({"step": 1, "alpha": 1.0})
    assert main(["plot", "*", "-o", "curve", "--metric", "loss"]) == 0
    out, err = capsys.readouterr()
    assert out == "curve.png: loss of 3 runs\n"
    assert err == (
        "vibe-rl: left out: sac: no record has numbers 'loss'; there are: step, alpha, wall_time\n"
    )
    assert (tmp_path / "curve.png").exists()


def test_the_return_is_found_whatever_holds_it(capsys):
    with MetricsLogger(RunDir("nested")) as logger:
        for step in range(3):
            logger.write({"step": step, "loss": 1.0, "損失": 1.0, "train/episode_return": 1.0})
    assert main(["plot", "nested", "-o", "a.png"]) == 0
    assert capsys.readouterr().out == "a.png: train/episode_return of 1 run\n"
    assert main(["plot", "nested", "-o", "a.png", "--metric", "損失"]) == 0
    assert capsys.readouterr().err == ""  # of matplotlib, which lacks these characters


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nothing", "-o", "a.png"], "'nothing' is no run"),
        (["x*", "-o", "a.png"], "no run in runs matches 'x*'"),
        (["latest", "-o", "a.gif"], "a plot is a .png, .svg or .pdf file, not 'a.gif'"),
        (["latest", "-o", "a.png", "--metric", "los"], "no record has numbers 'los'"),
        (["latest", "-o", "a.png", "--group", "gamma"], "has no 'gamma'; it has lr"),
        (["latest", "-o", "a.png", "--smooth", "0"], "--smooth is a number of records"),
        (["latest", "-o", "a.png", "--center", "iqm", "--band", "se"], "take the band ci"),
    ],
)
def test_what_cannot_be_plotted_is_said_in_a_line(args, message, capsys):
    assert main(["plot", *args]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1

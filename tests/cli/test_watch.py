"""`vibe-rl watch` in a terminal: what stands on the screen, and what the keys do."""

import json
import shutil
import signal
import subprocess
import sys

import pytest
from terminal import Terminal

from vibe_rl.metrics import MetricsLogger
from vibe_rl.run_dir import RunDir


@pytest.fixture
def terminal(tmp_path):
    opened = []

    def open_(*args, **kwargs):
        opened.append(Terminal(*args, cwd=tmp_path, **kwargs))
        return opened[-1]

    yield open_
    for each in opened:
        each.kill()


def write(tmp_path, run_id, records):
    with MetricsLogger(RunDir(run_id=run_id, base_dir=tmp_path / "runs")) as logger:
        for record in records:
            logger.write(record)


def test_a_growing_run_from_before_its_start_to_its_end(tmp_path, terminal):
    watch = terminal("watch")
    watch.wait_for("No run in runs yet", "vibe-rl train ppo", "q quit")
    logger = MetricsLogger(RunDir(run_id="ppo_20260101_120000", base_dir=tmp_path / "runs"))
    watch.wait_for("waiting for a record")
    logger.write({"step": 1000, "episode_return": 10.0, "loss": 1.0})
    watch.wait_for("● ppo_20260101_120000  running  step 1000", "episode_return 1/2")
    logger.write({"step": 20_000, "episode_return": 200.0, "loss": 2.0})
    watch.wait_for("step 20k", "200 ┤")
    logger.close()
    watch.wait_for("finished")
    watch.press("q")
    assert watch.end() == 0


def test_the_keys_change_what_is_drawn(tmp_path, terminal):
    records = [
        {"step": step, "seed": seed, "loss": 10.0 ** (seed - step / 50), "grad": {"norm": 3.0}}
        for step in range(100)
        for seed in range(2)
    ]
    write(tmp_path, "dqn", records)
    watch = terminal("watch", "dqn", "--metric", "loss")
    watch.wait_for("● seed 0  ● seed 1", "loss 1/2", "x: steps", "smooth: off", "y: linear")
    for key, text in (
        ("l", "y: log"),
        ("s", "smooth: mean of 10 records"),
        ("x", "x: seconds"),
        ("b", "mean and range of 2 curves"),
        ("\x1b[C", "grad/norm 2/2"),
        ("\x1b[D", "loss 1/2"),
    ):
        watch.press(key)
        watch.wait_for(text)
    watch.press("m")
    watch.wait_for(" grad/norm", "Enter: show the metric", "Esc: back")
    watch.press("\x1b[B\r")
    watch.wait_for("grad/norm 2/2")


def test_what_is_not_finite_is_marked_and_said(tmp_path, terminal):
    values = [1.0, 2.0, float("nan"), 3.0, float("inf"), 4.0]
    write(tmp_path, "dqn", [{"step": i, "loss": value} for i, value in enumerate(values)])
    with (tmp_path / "runs/dqn/logs/metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "los')
    watch = terminal("watch", "dqn")
    screen = watch.wait_for("2 not finite", "nan at step 2", "step 5", "▲", "└").splitlines()
    above_the_axis = next(nth for nth, line in enumerate(screen) if "└" in line) - 1
    assert "▲" in screen[1]
    assert "x" in screen[above_the_axis]


def test_an_alert_is_said(tmp_path, terminal):
    run = RunDir(run_id="dqn", base_dir=tmp_path / "runs")
    with MetricsLogger(run, alert=lambda record: "too high" if record["loss"] > 1 else None) as log:
        log.write({"step": 7, "loss": 2.0})
    terminal("watch").wait_for("alert: too high at step 7")


def test_runs_are_overlaid_and_a_large_file_is_sampled(tmp_path, terminal):
    write(tmp_path, "a", [{"step": i, "loss": 1.0} for i in range(10)])
    large = RunDir(run_id="b", base_dir=tmp_path / "runs").log_path()
    line = json.dumps({"step": 1, "loss": 2.0, "text": "x" * 1000}) + "\n"
    with large.open("w") as file:
        file.writelines([line] * 20_000)
    watch = terminal("watch", "a", "b")
    watch.wait_for("● a  finished", "● b  no logger", "sample:", "of 2")


def test_of_many_runs_each_is_named_and_so_is_the_one_that_is_not_finite(tmp_path, terminal):
    for nth, run_id in enumerate("abcdef"):
        loss = float("nan") if run_id == "b" else float(nth)
        write(tmp_path, run_id, [{"step": 1, "loss": loss}, {"step": 2, "loss": 1.0}])
    watch = terminal("watch", *"abcdef")
    watch.wait_for("● d  finished", "● e  ● f", "1 not finite of b (x ▲ ▼): nan at step 1")


def test_the_chart_leaves_room_for_what_stands_below_it(tmp_path, terminal):
    records = [{"step": 1, "seed": seed, "loss": float("nan")} for seed in range(8)]
    write(tmp_path, "dqn", [*records, *[record | {"loss": 1.0} for record in records]])
    screen = terminal("watch", "dqn").wait_for("8 not finite", "○ seed 7", "└", "q quit")
    below_the_axis = screen.split("└")[1].splitlines()
    assert len(below_the_axis) == 1 + 1 + 3 + 1  # its labels, the metric, NaN, the legend, the keys


def test_a_run_that_goes_away_and_comes_back_anew(tmp_path, terminal):
    write(tmp_path, "a", [{"step": step, "loss": 900.0} for step in range(50)])
    watch = terminal("watch", "a")
    watch.wait_for("a  finished  step 49", "900")
    shutil.rmtree(tmp_path / "runs/a/logs")
    watch.wait_for("its files are gone")
    write(tmp_path, "a", [{"step": step, "loss": float(step)} for step in range(5)])
    screen = watch.wait_for("a  finished  step 4", "2 ┤")
    assert "900" not in screen


def test_a_run_that_cannot_be_read_is_said_beside_others(tmp_path, terminal):
    write(tmp_path, "a", [{"step": 7, "loss": 1.0}])
    write(tmp_path, "b", [{"step": 9, "loss": 1.0}])
    notes = tmp_path / "runs/a/logs/metrics.writers.jsonl"
    notes.unlink()
    notes.mkdir()
    terminal("watch", "a", "b").wait_for("a  unreadable: ", "b  finished  step 9", "loss 1/1")


@pytest.mark.parametrize(
    ("signum", "code", "message"),
    [
        (None, 130, "stopped by Ctrl-C"),
        (signal.SIGTERM, 143, "stopped by SIGTERM"),
    ],
)
def test_it_leaves_the_terminal_as_it_was(tmp_path, terminal, signum, code, message):
    write(tmp_path, "a", [{"step": 1, "loss": 1.0}])
    watch = terminal("watch", "a")
    watch.wait_for("loss 1/1")
    watch.press("\x03") if signum is None else watch.signal(signum)
    assert watch.end() == code
    assert f"vibe-rl: {message}" in watch.text()


def test_a_record_without_a_place_does_no_harm(tmp_path, terminal):
    steps = [0.0, 1.0, float("nan"), float("inf"), 4.0]
    write(tmp_path, "dqn", [{"step": step, "loss": 1e308 * step / 4} for step in steps])
    watch = terminal("watch", "dqn")
    watch.wait_for("step 4", "loss 1/1", "└")
    for key, text in (("l", "y: log"), ("x", "x: seconds"), ("s", "mean of 10")):
        watch.press(key)
        watch.wait_for(text, "└")


def test_what_breaks_it_is_an_error_of_one_line(tmp_path, terminal):
    write(tmp_path, "a", [{"step": 1, "loss": 1.0}])
    breaks = "import vibe_rl.cli.watching.app as app\ndef draw(*_, **__): raise KeyError('x')\n"
    for before in (breaks + "app.draw = draw", breaks + "app.LiveRun = draw"):
        watch = terminal("watch", "a", before=before)
        assert watch.end() == 1
        assert "vibe-rl: error: watch broke: " in watch.text()
        assert "Traceback" not in watch.text()


def test_what_is_not_finite_elsewhere_is_said_of_every_run(tmp_path, terminal):
    for run_id in "ab":
        records = [{"step": 1, "loss": 1.0, "q": float("nan"), "grad": {"norm": float("inf")}}]
        write(tmp_path, run_id, [*records, {"step": 2, "loss": float("nan")}])
    watch = terminal("watch", "a", "b", "--metric", "loss")
    watch.wait_for("not finite either: q, grad/norm of a; q, grad/norm of b", "1 not finite of a")
    watch.wait_for("1 not finite of b", "nan at step 2")


def test_what_is_not_finite_outside_of_the_sample_is_said(tmp_path, terminal):
    with MetricsLogger(RunDir(run_id="b", base_dir=tmp_path / "runs")) as logger:
        for step in range(12_000):
            loss = float("nan") if step == 6_001 else 1.0
            logger.write({"step": step, "loss": loss, "text": "x" * 2000})
    watch = terminal("watch", "b")
    watch.wait_for("sample: ", "loss is nan at step 6001, not in the sample")
    watch.press("sssl")
    foot = watch.wait_for("mean of 1000 records").splitlines()
    assert any(line.endswith("y: log · smooth: mean of 1000 records") for line in foot)
    assert "…" not in watch.text()


def test_a_seed_that_died_is_a_gap_of_the_mean(tmp_path, terminal):
    records = [
        {"step": step, "seed": seed, "loss": float("nan") if seed and step > 50 else seed * 100.0}
        for step in range(100)
        for seed in range(2)
    ]
    write(tmp_path, "dqn", records)
    watch = terminal("watch", "dqn")
    watch.wait_for("● seed 1")
    watch.press("b")
    screen = watch.wait_for("mean and range of 2 curves").splitlines()
    *rows, _axis = screen[1 : next(n for n, line in enumerate(screen) if "└" in line) + 1]
    assert [bool(row[9:40].strip("⠀ ")) for row in rows].count(True) == 3  # mean, least, greatest
    assert not any(row[50:].strip("⠀ x") for row in rows)  # nor of the one that is left


def test_a_metric_that_no_ended_run_has_is_an_error_and_of_a_running_one_is_waited_for(
    tmp_path, terminal
):
    write(tmp_path, "a", [{"step": 1, "loss": 1.0}])
    watch = terminal("watch", "a", "--metric", "los")
    assert watch.end() == 2
    assert "there is no metric 'los'; near it: loss" in watch.text()
    with MetricsLogger(RunDir(run_id="b", base_dir=tmp_path / "runs")) as logger:
        logger.write({"step": 1, "loss": 1.0})
        watch = terminal("watch", "b", "--metric", "late")
        watch.wait_for("no metric 'late' yet; there are: loss", "loss 1/1")
        logger.write({"step": 2, "late": 1.0})
        watch.wait_for("late 2/2")


def test_names_do_nothing_to_the_terminal_and_points_left_out_are_counted(tmp_path, terminal):
    name = "\x1b]0;title\x07loss"
    write(tmp_path, "a", [{"step": step, name: step - 1.0} for step in range(5)])
    watch = terminal("watch", "a")
    watch.wait_for(r"\x1b]0;title\x07loss 1/1")
    watch.press("l")
    watch.wait_for("y: log (≤ 0, left out: 2)")
    watch.press("m")
    watch.wait_for("Esc: back")
    watch.press("\r")
    watch.wait_for(r"\x1b]0;title\x07loss 1/1")


def test_without_a_terminal_it_says_what_does_without(tmp_path):
    command = [sys.executable, "-m", "vibe_rl.cli", "watch"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "vibe-rl tail RUN -f" in result.stderr

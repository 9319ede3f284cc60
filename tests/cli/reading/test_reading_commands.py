"""What `vibe-rl runs`, `show` and `tail` have in common."""

import json
import os
import subprocess
import sys

import pytest
from rich.cells import cell_len
from three_runs import FINISHED, lines

from vibe_rl.cli import main
from vibe_rl.cli.select import metrics_files
from vibe_rl.metrics import MetricsLogger
from vibe_rl.run_dir import RunDir


@pytest.mark.parametrize("verb", [["runs"], ["show"], ["tail"], ["plot", "*", "-o", "a.png"]])
def test_a_base_directory_that_is_none_is_the_same_error_everywhere(capsys, tmp_path, verb):
    (tmp_path / "file").touch()
    for base, message in (
        ("none", "there is no run in none; --base-dir says where runs are"),
        ("file", "--base-dir is a directory of runs; file is none"),
    ):
        assert main([*verb, "--base-dir", base]) == 2
        assert capsys.readouterr().err == f"vibe-rl: error: {message}\n"


def test_tail_and_runs_take_the_files_of_all_processes(capsys, job):
    newest = [json.loads(line) for line in lines(capsys, "tail", "job", "--json", "-n", "2")]
    assert [(r["process"], r["step"]) for r in newest] == [(0, 3), (0, 4), (1, 3), (1, 4)]
    row = json.loads(lines(capsys, "runs", "--json", "job")[0])
    assert row["bytes"] == sum(file.stat().st_size for file in metrics_files(job))
    assert row["step"] == 4


def test_a_file_of_something_else_is_no_run(tmp_path, capsys):
    (tmp_path / "make.py").write_text("import vibe_rl\n" * 100_000)
    for verb in (["show"], ["tail"], ["watch"], ["plot", "-o", "a.png"]):
        assert main([*verb, "make.py"]) == 2
        if verb != ["watch"]:  # which asks for a terminal first
            assert "'make.py' is no run: no line of it is a record" in capsys.readouterr().err


def test_what_somebody_logged_does_nothing_to_the_terminal_and_stays_aligned(capsys):
    run = RunDir(run_id="text")
    run.save_config({"name": "a\x1b[31mred\nline", "長い": 1, "b": 2})
    with MetricsLogger(run, alert=lambda record: "odd\x1b]0;title\x07\n") as logger:
        logger.write({"step": 1, "esc\x1b[2J": 1.0, "note": "日本語", "x": 1})
        logger.write({"step": 2, "esc\x1b[2J": 1.0, "note": "a\tb", "x": 2})
    shown, tailed = lines(capsys, "show", "text"), lines(capsys, "tail", "text")
    text = "\n".join(shown + tailed)
    assert not set(text) & {"\x1b", "\x07", "\t"}
    assert r"  name a\x1b[31mred\nline" in text
    assert r"odd\x1b]0;title\x07\n" in text
    assert r"esc\x1b[2J" in text
    columns = [shown[shown.index("config") + nth] for nth in (2, 3)]
    assert [cell_len(line[: line.rindex(" ")]) for line in columns] == [6, 6]
    assert len({cell_len(line) for line in tailed[1:]}) == 1


@pytest.mark.parametrize("verb", ["runs --json", "show --json", "plot bad -o a.png --metric loss"])
def test_a_name_that_is_no_utf_8_hides_no_run(capsys, verb):
    with MetricsLogger(os.fsdecode(b"runs/bad\xff_20260101_150000/logs/metrics.jsonl")) as logger:
        logger.write({"step": 1, "loss": 1.0})
    out = "\n".join(lines(capsys, *verb.split()))
    assert r'"run":"bad\\udcff_20260101_150000"' in out or "loss of 1 run" in out


def test_a_terminal_of_few_characters_is_no_reason_to_stop():
    command = [sys.executable, "-m", "vibe_rl.cli", "runs"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    result = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (0, b"")
    assert FINISHED.encode() in result.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["show", "pp"], "'pp' begins 2 runs"),
        (["show", "sac"], "'sac' is no run in runs"),
        (["tail", "runs/none"], "there is no such file"),
        (["tail", FINISHED, "--column", "los"], "no record has a field 'los'; near it: loss"),
        (["tail", "-n", "-1"], "--newest"),
        (["runs", "-n", "0"], "--newest"),
        (["runs", "--metric", "los"], "no run has a metric 'los'; near it: loss"),
        (["runs", "--base-dir", "s3://bucket"], "s3://bucket"),
        (["runs", "--base-dir", "~nosuchuser"], "got '~nosuchuser'"),
        (["show", "~nosuchuser"], "'~nosuchuser' is no run in runs"),
        (["show", "~nosuchuser/run"], "there is no such file or directory"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(capsys, args, message):
    assert main(args) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err

"""`vibe-rl show`: what a run holds, and how it ended."""

import json
import re
import shlex

import pytest
from recorders import FileBackend
from three_runs import CRASHED, FINISHED, lines

from vibe_rl.cli import main
from vibe_rl.metrics import MetricsLogger
from vibe_rl.run_dir import RunDir


def test_show_sums_up_the_files_of_all_processes(capsys, job):
    (loss,) = (
        metric for metric in json.loads(lines(capsys, "show", "job", "--json")[0])["metrics"]
    )
    assert loss["metric"] == "loss"  # that of the process is none
    assert (loss["count"], loss["min"], loss["max"]) == (10, 0.0, 14.0)
    assert (loss["first"], loss["last"]) == (0.0, 14.0)
    assert (loss["nonfinite"], loss["nonfinite_step"]) == (1, 3)


def test_show_sums_a_run_up(capsys):
    RunDir(run_id=CRASHED).save_config({"lr": 0.5, "net": {"sizes": [8, 4]}})
    text = "\n".join(lines(capsys, "show", CRASHED))
    assert "crashed (ZeroDivisionError)" in text
    assert re.search(r"^  lr +0.5$", text, re.MULTILINE)
    assert re.search(r"^  net.sizes +\[8, 4\]$", text, re.MULTILINE)
    assert re.search(r"^  loss +1 +nan +nan +nan +nan 1, first at step 7$", text, re.MULTILINE)
    assert re.search(r"^  grad/norm +1 +2 +2 +2 +2$", text, re.MULTILINE)
    assert "loss is nan at step 7" in text


def test_show_of_a_run_whose_config_is_none_goes_without(capsys):
    (RunDir(run_id=CRASHED).root / "config.json").write_text("[1]")
    assert json.loads(lines(capsys, "show", CRASHED, "--json")[0])["config"] is None


def test_show_counts_what_each_backend_has_not_had(capsys):
    run = RunDir(run_id="fed")
    with MetricsLogger(run, [FileBackend("out")]) as logger:
        logger.write({"step": 1, "i": 1})
    with MetricsLogger(run) as logger:
        for i in range(3):
            logger.write({"step": i, "i": i})
    (backend,) = json.loads(lines(capsys, "show", "fed", "--json")[0])["backends"]
    assert (backend["behind"], backend["fed"]) == (3, False)
    assert "3 records behind: vibe-rl sync" in "\n".join(lines(capsys, "show", "fed"))


def test_of_a_sample_first_last_and_nonfinite_values_are_those_of_the_whole_files(capsys, sparse):
    shown = json.loads(lines(capsys, "show", "sparse", "--json")[0])
    assert shown["fraction"] < 1
    found = {each.pop("metric"): each for each in shown["metrics"]}
    assert (found["eval/return"]["first"], found["eval/return"]["last"]) == (1.0, 3.0)
    assert (found["eval/return"]["min"], found["eval/return"]["max"]) == (1.0, 3.0)
    none = dict.fromkeys(("first", "last", "min", "max"))
    assert found["late"] == {"count": 0, **none, "nonfinite": 1, "nonfinite_step": 31_001}


def test_show_says_what_a_users_own_check_found_and_when(capsys):
    run = RunDir(run_id="checked")
    with MetricsLogger(run, alert=lambda record: "too high" if record["loss"] > 1 else None) as log:
        log.write({"step": 12_345, "loss": 2.0})
    text = "\n".join(lines(capsys, "show", "checked"))
    assert "too high at step 12345" in text
    assert "backends" not in text  # it is fed like one


def test_show_as_json_is_one_object_with_the_summary(capsys):
    (line,) = lines(capsys, "show", FINISHED, "--json")
    shown = json.loads(line)
    loss = next(metric for metric in shown["metrics"] if metric["metric"] == "loss")
    assert (loss["count"], loss["first"], loss["last"]) == (20, 1.0, 0.05)
    assert (loss["min"], loss["max"], loss["nonfinite"]) == (0.05, 1.0, 0)
    assert shown["fraction"] == 1.0


def test_the_command_that_show_gives_can_be_pasted(capsys):
    run = RunDir(run_id="a run's", base_dir="other runs")
    with MetricsLogger(run, [FileBackend("out")]) as logger:
        logger.write({"step": 1, "i": 1})
    with MetricsLogger(run) as logger:
        logger.write({"step": 2, "i": 2})
    text = "\n".join(lines(capsys, "show", "a run", "--base-dir", "other runs"))
    command = re.search("vibe-rl sync .*", text)[0]
    assert shlex.split(command)[2:] == [str(run.root), "--to", "MODULE:CLASS"]


def test_show_counts_lines_that_are_no_records(capsys):
    path = RunDir(run_id=FINISHED).log_path()
    text = path.read_bytes().split(b"\n")
    text[3], text[5] = b"garbage", b""
    path.write_bytes(b"\n".join(text) + b'{"torn')
    assert main(["show", FINISHED]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "vibe-rl: lines of it that are no records: 1",
        "vibe-rl: its last line is torn: 6 bytes",
    ]
    shown = json.loads(lines(capsys, "show", FINISHED, "--json")[0])
    assert (shown["corrupt"], shown["torn"]) == (1, 6)


@pytest.mark.parametrize("time", [1e308, "noon"])
def test_show_passes_over_notes_and_alarms_that_are_none(capsys, time):
    run = RunDir(run_id=CRASHED)
    for name in ("metrics.writers.jsonl", "metrics.alarms.jsonl"):
        path = run.log_path(name)
        notes = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(note | {"time": time}) + "\n" for note in notes))
    text = "\n".join(lines(capsys, "show", CRASHED))
    assert "no logger has written it" in text
    assert "alarms" not in text

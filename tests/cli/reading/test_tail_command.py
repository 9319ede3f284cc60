"""`vibe-rl tail`: the newest records, and those that follow."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import Terminal
from three_runs import FINISHED, RUNNING, lines

from vibe_rl.cli import main
from vibe_rl.metrics import MetricsLogger, read_metrics
from vibe_rl.metrics.append import process_path
from vibe_rl.run_dir import RunDir


def test_tail_shows_the_newest_records_aligned(capsys):
    header, *rows = lines(capsys, "tail", FINISHED, "-n", "3")
    assert header.split() == ["step", "episode_return", "loss", "wall_time"]
    assert [row.split()[0] for row in rows] == ["1800", "1900", "2000"]
    assert len({len(line) for line in (header, *rows)}) == 1


def test_tail_as_json_is_what_the_file_holds(capsys):
    out = "\n".join(lines(capsys, "tail", FINISHED, "--json", "-n", "2"))
    assert [json.loads(line) for line in out.splitlines()] == read_metrics(f"runs/{FINISHED}")[-2:]


def test_tail_of_a_file_without_records_says_so(tmp_path, capsys):
    (tmp_path / "empty.jsonl").touch()
    assert main(["tail", "empty.jsonl"]) == 0
    said = "vibe-rl: empty.jsonl has no records yet; -f waits for them\n"
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize(
    ("options", "shown"), [([], ["", ""]), (["--column", "loss"], ["loss", "   -", "   -"])]
)
def test_tail_of_records_without_fields(tmp_path, capsys, options, shown):
    (tmp_path / "bare.jsonl").write_text("{}\n{}\n")
    assert lines(capsys, "tail", "bare.jsonl", *options) == shown


def test_a_column_that_the_newest_records_lack_is_shown_empty(capsys):
    with MetricsLogger(RunDir(run_id="schema")) as logger:
        for step in range(50):
            logger.write({"step": step} | ({"eval": {"return": 1.5}} if step % 40 == 0 else {}))
    *_, last = lines(capsys, "tail", "schema", "--column", "step", "--column", "eval/return")
    assert last.split() == ["49", "-"]


def test_a_field_that_few_records_of_a_large_file_have_is_not_refused(capsys, sparse, monkeypatch):
    monkeypatch.setattr("vibe_rl.cli.tail._SEARCHED_BYTES", 1 << 12)
    monkeypatch.setattr("vibe_rl.metrics.reading.series._NAMES_BYTES", 1 << 12)
    assert lines(capsys, "tail", "sparse", "-n", "1", "--column", "late")[1].split() == ["-"]
    assert main(["runs", "sparse", "--json", "--metric", "late"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["last"] is None
    assert re.fullmatch("vibe-rl: the few kilobytes .* have no metric 'late'; there are: .*\n", err)
    assert main(["tail", "sparse", "--column", "latee"]) == 2


def test_a_column_is_waited_for_while_following(running):
    running.write({"step": 1})
    running.flush()
    command = [sys.executable, "-m", "vibe_rl.cli", "tail", RUNNING, "-f", "--column", "late"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        found = [process.stdout.readline().split() for _ in range(2)]
        running.write({"step": 2, "late": 7})
        running.close()
        found += [line.split() for line in process.stdout]
    assert (process.returncode, found) == (0, [[b"late"], [b"-"], [b"7"]])


def test_tail_of_chosen_columns(capsys):
    header, *_ = lines(capsys, "tail", FINISHED, "--column", "loss")
    assert header.split() == ["loss"]


def test_tail_follows_until_the_run_ends(running):
    running.write({"step": 1, "loss": 1.0})
    running.flush()
    command = [sys.executable, "-m", "vibe_rl.cli", "tail", RUNNING, "-f", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert json.loads(process.stdout.readline())["step"] == 1
        running.write({"step": 2, "loss": float("inf")})
        assert json.loads(process.stdout.readline())["_nonfinite"] == {"loss": "inf"}
        running.close()
        assert process.stdout.read() == b""
        assert f"{RUNNING} finished" in process.stderr.read().decode()
    assert process.returncode == 0


def test_tail_follows_a_file_that_is_rotated(running, capfd, between_looks):
    path = RunDir(run_id=RUNNING).log_path()

    def write(*steps):
        for step in steps:
            running.write({"step": step})
        running.flush()

    write(0, 1)
    between_looks(
        lambda: (write(2), path.rename("rotated.1")),
        lambda: None,
        lambda: write(3),
        lambda: (write(4), path.rename("rotated.2"), write(5)),
        running.close,
    )
    assert main(["tail", RUNNING, "-f", "--json", "-n", "1"]) == 0
    out, err = capfd.readouterr()
    assert [json.loads(line)["step"] for line in out.splitlines()] == [1, 2, 3, 4, 5]
    assert f"{RUNNING} finished" in err


def test_tail_shows_what_a_process_that_goes_back_has_kept_once(tmp_path, capfd, between_looks):
    path = tmp_path / "job" / "logs" / "metrics.jsonl"
    back, on = (process_path(path, process) for process in range(2))

    def log(steps, **settings):
        with MetricsLogger(back, **settings) as logger:
            for step in steps:
                logger.write({"step": step})

    other = MetricsLogger(on)
    log(range(10))
    between_looks(lambda: log(range(5, 8), resume_step=4), other.close)
    assert main(["tail", str(path.parent.parent), "-f", "--json", "-n", "3"]) == 0
    steps = [json.loads(line)["step"] for line in capfd.readouterr().out.splitlines()]
    assert steps == [7, 8, 9, 5, 6, 7]


def test_lines_that_are_no_records_are_passed_over_while_following(running, capfd, between_looks):
    path = RunDir(run_id=RUNNING).log_path()
    running.write({"step": 0})
    running.flush()

    def garble():
        with path.open("ab") as file:
            file.write(b'garbage\n{"step":1}\n')

    between_looks(garble, running.close)
    assert main(["tail", RUNNING, "-f", "--json"]) == 0
    out, err = capfd.readouterr()
    assert [json.loads(line)["step"] for line in out.splitlines()] == [0, 1]
    assert err == f"vibe-rl: {RUNNING} finished\n"


def test_ctrl_c_ends_following(running):
    running.write({"step": 1})
    running.flush()
    command = [sys.executable, "-m", "vibe_rl.cli", "tail", RUNNING, "-f"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b"vibe-rl: stopped by Ctrl-C\n"
    assert process.returncode == 130


def test_a_reader_that_has_seen_enough_is_no_error():
    command = [sys.executable, "-m", "vibe_rl.cli", "tail", FINISHED, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_tail_of_a_file_of_a_gigabyte_reads_its_end(tmp_path, capsys, monkeypatch):
    read = []

    class File(io.FileIO):
        def read(self, size=-1):
            text = super().read(size)
            read.append(len(text))
            return text

    path = tmp_path / "large.jsonl"
    with path.open("wb") as file:
        file.truncate(1 << 30)  # sparse
        file.seek(0, os.SEEK_END)
        file.write(b'\n{"step":1}\n{"step":2}\n')
    monkeypatch.setattr(Path, "open", lambda path, mode, buffering: File(path, mode))
    assert [json.loads(line) for line in lines(capsys, "tail", str(path), "--json", "-n", "2")] == [
        {"step": 1},
        {"step": 2},
    ]
    assert 0 < sum(read) < 1 << 20


def test_a_table_wider_than_the_terminal_says_what_is_left_out(tmp_path):
    with MetricsLogger(RunDir(run_id="wide")) as logger:
        logger.write({"step": 1} | {f"metric_number_{i}": i for i in range(9)})
    terminal = Terminal("tail", "wide", cwd=tmp_path)
    assert terminal.end() == 0
    text = terminal.text()
    terminal.kill()
    assert "also: metric_number_4" in text
    assert "--column NAME or --json" in text
    assert re.search(r"^step metric_number_0 .* metric_number_3$", text, re.MULTILINE)

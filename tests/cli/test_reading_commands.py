"""`vibe-rl runs`, `show` and `tail`: what they print, of running, finished and broken runs."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys

import pytest
from recorders import FileBackend
from rich.cells import cell_len
from terminal import Terminal

from vibe_rl.cli import main
from vibe_rl.cli.overview import overview
from vibe_rl.cli.select import metrics_files
from vibe_rl.metrics import MetricsLogger, read_metrics
from vibe_rl.metrics.append import process_path
from vibe_rl.metrics.reading import state
from vibe_rl.run_dir import RunDir

FINISHED, CRASHED, RUNNING = "ppo_20260101_120000", "ppo_20260101_130000", "dqn_20260101_140000"
RECORDS = [
    {"step": 100 * i, "episode_return": float(i), "loss": 1.0 / i, "wall_time": i / 2}
    for i in range(1, 21)
]


@pytest.fixture(autouse=True)
def running(tmp_path, monkeypatch):
    """Three runs, of which one goes on: its logger."""
    monkeypatch.chdir(tmp_path)
    with MetricsLogger(RunDir(run_id=FINISHED)) as logger:
        for record in RECORDS:
            logger.write(record)
    with pytest.raises(ZeroDivisionError), MetricsLogger(RunDir(run_id=CRASHED)) as logger:
        logger.write({"step": 7, "loss": float("nan"), "grad": {"norm": 2.0}})
        raise ZeroDivisionError
    with MetricsLogger(RunDir(run_id=RUNNING)) as logger:
        yield logger


def lines(capsys, *args):
    assert main([*args]) == 0
    return capsys.readouterr().out.splitlines()


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


@pytest.mark.parametrize("verb", [["runs"], ["show"], ["tail"], ["plot", "*", "-o", "a.png"]])
def test_a_base_directory_that_is_none_is_the_same_error_everywhere(capsys, tmp_path, verb):
    (tmp_path / "file").touch()
    for base, message in (
        ("none", "there is no run in none; --base-dir says where runs are"),
        ("file", "--base-dir is a directory of runs; file is none"),
    ):
        assert main([*verb, "--base-dir", base]) == 2
        assert capsys.readouterr().err == f"vibe-rl: error: {message}\n"


def test_a_run_that_cannot_be_read_hides_no_other(capsys):
    writers = RunDir(run_id=CRASHED).log_path("metrics.writers.jsonl")
    writers.unlink()
    writers.mkdir()
    _, *rows = lines(capsys, "runs")
    assert [row.split()[0] for row in rows] == ["finished", "unreadable", "running"]
    assert "metrics.writers.jsonl" in rows[1]
    row = json.loads(lines(capsys, "runs", "--json", "--state", "unreadable")[0])
    assert (row["run"], row["step"], row["bytes"]) == (CRASHED, None, 0)


@pytest.fixture
def job():
    """A run of a job of two processes, each with a file of its own."""
    run = RunDir(run_id="job")
    for process, path in enumerate([run.log_path(), run.log_path("metrics.p1.jsonl")]):
        with MetricsLogger(path) as logger:
            for step in range(5):
                loss = float("nan") if (process, step) == (1, 3) else step + 10.0 * process
                logger.write({"step": step, "process": process, "loss": loss})
    return run


@pytest.fixture
def sparse(monkeypatch):
    """A run of two processes whose files are sampled, in which few records have some metrics."""
    monkeypatch.setattr("vibe_rl.cli.show._MOST_BYTES", 1 << 16)
    run = RunDir(run_id="sparse")
    odd = {"eval_return": 0.0, "train": {"return": 9.0}, "eval": "none"}
    rare = {
        0: {step: {"eval": {"return": 2.0}} for step in range(9_000, 30_000, 5)},
        1: {8_000: {"eval": {"return": 1.0}}, 31_000: {"eval/return": 3.0}},
    }
    rare[0][31_001] = {"late": float("nan")}
    for process, path in enumerate([run.log_path(), run.log_path("metrics.p1.jsonl")]):
        with MetricsLogger(path) as logger:
            for step in range(40_000):
                logger.write({"step": step, **odd, **rare[process].get(step, {})})
    return run


def test_show_sums_up_the_files_of_all_processes(capsys, job):
    (loss,) = (
        metric for metric in json.loads(lines(capsys, "show", "job", "--json")[0])["metrics"]
    )
    assert loss["metric"] == "loss"  # that of the process is none
    assert (loss["count"], loss["min"], loss["max"]) == (10, 0.0, 14.0)
    assert (loss["first"], loss["last"]) == (0.0, 14.0)
    assert (loss["nonfinite"], loss["nonfinite_step"]) == (1, 3)


def test_tail_and_runs_take_the_files_of_all_processes(capsys, job):
    newest = [json.loads(line) for line in lines(capsys, "tail", "job", "--json", "-n", "2")]
    assert [(r["process"], r["step"]) for r in newest] == [(0, 3), (0, 4), (1, 3), (1, 4)]
    row = json.loads(lines(capsys, "runs", "--json", "job")[0])
    assert row["bytes"] == sum(file.stat().st_size for file in metrics_files(job))
    assert row["step"] == 4


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


def test_a_file_of_something_else_is_no_run(tmp_path, capsys):
    (tmp_path / "make.py").write_text("import vibe_rl\n" * 100_000)
    for verb in (["show"], ["tail"], ["watch"], ["plot", "-o", "a.png"]):
        assert main([*verb, "make.py"]) == 2
        if verb != ["watch"]:  # which asks for a terminal first
            assert "'make.py' is no run: no line of it is a record" in capsys.readouterr().err


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


def test_a_metric_of_a_mapping_that_few_records_have_is_the_return(capsys):
    with MetricsLogger(RunDir(run_id="sparse")) as logger:
        for step in range(20):
            logger.write({"step": step} | ({"eval": {"return": step}} if step % 5 == 0 else {}))
    row = json.loads(lines(capsys, "runs", "--json", "sparse")[0])
    assert (row["metric"], row["last"]) == ("eval/return", 15.0)


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


def test_the_command_that_show_gives_can_be_pasted(capsys):
    run = RunDir(run_id="a run's", base_dir="other runs")
    with MetricsLogger(run, [FileBackend("out")]) as logger:
        logger.write({"step": 1})
    with MetricsLogger(run) as logger:
        logger.write({"step": 2})
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


def test_a_terminal_of_few_characters_is_no_reason_to_stop():
    command = [sys.executable, "-m", "vibe_rl.cli", "runs"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    result = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (0, b"")
    assert FINISHED.encode() in result.stdout


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


@pytest.fixture
def between_looks(monkeypatch):
    """Have these happen one by one, each before it is asked again whether the run has ended."""

    def happen(*events):
        left = [*events]
        files = state.metrics_files

        def asked(path):
            if left:
                left.pop(0)()
            return files(path)

        monkeypatch.setattr(state, "metrics_files", asked)

    return happen


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


def test_tail_of_a_file_of_a_gigabyte_reads_its_end(tmp_path, capsys):
    path = tmp_path / "large.jsonl"
    with path.open("wb") as file:
        file.truncate(1 << 30)  # sparse
        file.seek(0, os.SEEK_END)
        file.write(b'\n{"step":1}\n{"step":2}\n')
    assert [json.loads(line) for line in lines(capsys, "tail", str(path), "--json", "-n", "2")] == [
        {"step": 1},
        {"step": 2},
    ]


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

"""`vibe-rl sync`: what it delivers, and when it refuses."""

import re
import shlex
import shutil
import sys
import time
from pathlib import Path

import pytest
from recorders import FileBackend, taken
from service_files import tensorboard_scalars, wandb_files, wandb_rows

from vibe_rl.cli import main
from vibe_rl.metrics import MetricsLogger, TensorBoardBackend, WandbBackend

PATH = ["--option", "path=out"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished run of ten records, seen from the directory in which it lies."""
    monkeypatch.chdir(tmp_path)
    write("run", range(10))
    return "run"


def write(run, steps, *backends):
    with MetricsLogger(f"{run}/logs/metrics.jsonl", backends) as logger:
        for step in steps:
            logger.write({"step": step, "i": step})


def steps(directory):
    return [step for _, step, _ in tensorboard_scalars(directory)["i"]]


def test_a_new_backend_gets_everything_and_after_that_only_what_is_new(run, capsys):
    assert main(["sync", run, "--to", "tensorboard"]) == 0
    assert "TensorBoardBackend took 10 records" in capsys.readouterr().out
    write(run, range(10, 15))
    assert main(["sync", f"{run}/logs/metrics.jsonl", "--to", "tensorboard"]) == 0
    assert "took 5 records" in capsys.readouterr().out
    assert steps(f"{run}/logs") == list(range(15))


def test_a_backend_that_a_logger_fed_gets_the_rest(run, capsys):
    write(run, range(10, 15), TensorBoardBackend(f"{run}/logs"))
    write(run, range(15, 20))
    assert main(["sync", run, "--to", "tensorboard"]) == 0
    assert steps(f"{run}/logs") == list(range(10, 20))


def test_when_there_is_nothing_to_deliver_no_file_is_left(run, tmp_path, capsys):
    assert main(["sync", run, "--to", "tensorboard"]) == 0
    assert main(["sync", run, "--to", "tensorboard"]) == 0
    out = capsys.readouterr().out
    assert "took 0 records" in out
    assert "--from-start delivers it again" in out
    assert len(list(tmp_path.rglob("events.*"))) == 1


def test_from_start_delivers_everything_again(run, capsys):
    assert main(["sync", run, "--to", "tensorboard"]) == 0
    assert main(["sync", run, "--to", "tensorboard", "--from-start"]) == 0
    assert capsys.readouterr().out.count("took 10 records") == 2


def test_wandb_gets_the_rest_in_the_run_and_project_that_it_had(run, tmp_path, capsys):
    write(run, range(10, 12), WandbBackend(project="rl", run_dir=run, mode="offline"))
    write(run, range(12, 15))
    time.sleep(1.1)  # W&B names an offline run's directory after the second
    assert main(["sync", run, "--to", "wandb", "--option", "mode=offline"]) == 0
    assert "WandbBackend took 3 records" in capsys.readouterr().out
    rows = [[row["i"] for row in wandb_rows(file)] for file in wandb_files(tmp_path)]
    assert rows == [[10, 11], [12, 13, 14]]


def test_what_a_run_was_split_by_is_split_on(run):
    def write_seeds(steps, *backends):
        with MetricsLogger(f"{run}/logs/metrics.jsonl", backends) as logger:
            for step in steps:
                logger.write({"step": step, "i": step, "seed": step % 2})

    write_seeds(range(10, 20), TensorBoardBackend(f"{run}/logs", split_by="seed"))
    write_seeds(range(20, 30))
    assert main(["sync", run, "--to", "tensorboard"]) == 0
    for seed in (0, 1):
        assert steps(f"{run}/logs/seed-{seed}") == list(range(10 + seed, 30, 2))


def test_a_wandb_run_that_no_file_names_is_found_too(run, tmp_path, capsys):
    backend = WandbBackend(project="rl", mode="offline", dir=".")
    write(run, range(10, 12), backend)
    write(run, range(12, 15))
    time.sleep(1.1)  # as above
    assert main(["sync", run, "--to", "wandb", "--option", "mode=offline"]) == 0
    assert "WandbBackend took 3 records" in capsys.readouterr().out
    assert {file.parent.name.rpartition("-")[2] for file in wandb_files(tmp_path)} == {
        backend.run_id
    }


def test_the_command_that_show_prints_brings_each_of_several_up_to_date(run, capsys):
    for directory in ("logs", "other directory"):
        write(run, range(10, 12), TensorBoardBackend(f"{run}/{directory}"))
    for _ in range(2):
        assert main(["show", run]) == 0
        commands = re.findall("records behind: vibe-rl (sync .*)", capsys.readouterr().out)
        for command in commands:
            assert main(shlex.split(command)) == 0
    assert not commands
    assert steps(f"{run}/logs") == [10, 11, 10, 11]
    assert steps(f"{run}/other directory") == [10, 11]


def test_a_class_of_ones_own_with_options(run):
    options = ["--option", "path=out", "--option", "holds=true"]
    assert main(["sync", run, "--to", "recorders:FileBackend", *options]) == 0
    assert taken("out") == list(range(10))


def test_a_backend_that_a_running_logger_feeds_is_refused(run, capsys):
    logger = MetricsLogger(f"{run}/logs/metrics.jsonl", [TensorBoardBackend(f"{run}/logs")])
    assert main(["sync", run, "--to", "tensorboard"]) == 2
    assert "running logger" in capsys.readouterr().err
    logger.close()
    assert main(["sync", run, "--to", "tensorboard"]) == 0


def test_the_run_may_be_named_by_its_id(run, capsys):
    shutil.move(run, "runs/ppo_20260101_120000")
    assert main(["sync", "ppo", "--to", "tensorboard"]) == 0
    assert "took 10 records" in capsys.readouterr().out


def test_a_wandb_run_that_is_under_way_is_left_alone(run, capsys):
    backend = WandbBackend(run_dir=run, mode="offline")
    with MetricsLogger(f"{run}/logs/metrics.jsonl", [backend]) as logger:
        assert main(["sync", run, "--to", "wandb", "--option", "mode=offline"]) == 2
        assert "running logger" in capsys.readouterr().err
        logger.write({"i": 10})
    assert logger.stats.backends["WandbBackend"].logged == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere", "--to", "tensorboard"], "there is no run in runs"),
        (["./nowhere", "--to", "tensorboard"], "'./nowhere' is no run"),
        (["run", "--to", "nope"], "not 'nope'"),
        (["run", "--to", "no.such.module:Backend"], "not 'no.such.module:Backend'"),
        (["run", "--to", "recorders:Nothing"], "has no attribute 'Nothing'"),
        (["run", "--to", "needs_more:Backend"], "No module named 'more'"),
        (["run", "--to", "ends:Backend"], "SystemExit: 7"),
        (["run", "--to", "nonsense:Backend"], "SyntaxError"),
        (["run", "--to", "recorders:Unidentified", *PATH], "ValueError: no identity yet"),
        (["run", "--to", ":Backend"], "not ':Backend'"),
        (["run", "--to", "os:getcwd"], "log and close"),
        (["run", "--to", "recorders:FileBackend"], "path"),
        (["run", "--to", "recorders:Refusing", "--option", "reason=why"], "LookupError: why"),
        (["run", "--to", "wandb", "--option", "mode=sideways"], "wandb can't be built"),
        (["run", "--to", "wandb", "--option", "id=a/b"], "wandb can't be built"),
        (["run", "--to", "tensorboard", "--option", "log_dir"], "NAME=VALUE, not 'log_dir'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(run, capsys, args, message):
    Path("needs_more.py").write_text("import more")
    Path("ends.py").write_text("raise SystemExit(7)")
    Path("nonsense.py").write_text("class")
    assert main(["sync", *args]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "content", [b"some\ntext\n", b"[1]\n", b"\x00\xff\x7f" * 99, b'{"step": 1']
)
def test_a_file_of_anything_else_is_an_error_that_leaves_nothing_behind(tmp_path, capsys, content):
    file = tmp_path / "some.txt"
    file.write_bytes(content)
    assert main(["sync", str(file), "--to", "tensorboard"]) == 2
    err = capsys.readouterr().err
    assert "no line of" in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [file]


def test_the_files_of_a_job_are_named(tmp_path, capsys):
    logs = tmp_path / "job" / "logs"
    logs.mkdir(parents=True)
    (logs / "metrics.p1.jsonl").write_text('{"step": 1}\n')
    assert main(["sync", str(tmp_path / "job"), "--to", "tensorboard"]) == 2
    assert "metrics.p1.jsonl: sync each" in capsys.readouterr().err


def test_a_file_with_a_few_lines_of_anything_else_is_delivered(run, tmp_path, capsys):
    file = tmp_path / run / "logs" / "metrics.jsonl"
    file.write_bytes(b"junk\n" + file.read_bytes() + b"junk\n")
    assert main(["sync", run, "--to", "tensorboard"]) == 0
    assert "took 10 records" in capsys.readouterr().out


def test_what_a_backend_does_not_take_is_an_error(run, capsys, monkeypatch):
    monkeypatch.setattr("vibe_rl.metrics.feed.tickets.PATIENCE_S", 0.5)

    def refuse(self, record, step=None):
        raise ConnectionError("no network")

    monkeypatch.setattr(FileBackend, "log", refuse)
    to = ["--to", "recorders:FileBackend", "--option", "path=out"]
    assert main(["sync", run, *to]) == 1
    assert "did not take everything" in capsys.readouterr().err
    monkeypatch.undo()


def test_after_a_crash_nothing_is_missing(run, python):
    script = """
import sys
sys.path[:] = sys.argv[1:]
from vibe_rl.metrics import MetricsLogger, TensorBoardBackend
logger = MetricsLogger("run/logs/metrics.jsonl", [TensorBoardBackend("run/logs")])
for step in range(10, 5000):
    logger.write({"step": step, "i": step})
while logger.stats.queued:
    pass
print("written", flush=True)
sys.stdin.read()
"""
    trainer = python(script, *sys.path)
    assert trainer.stdout.readline() == "written\n", trainer.communicate()
    trainer.kill()
    trainer.wait()
    assert main(["sync", run, "--to", "tensorboard"]) == 0
    assert sorted(set(steps(f"{run}/logs"))) == list(range(10, 5000))

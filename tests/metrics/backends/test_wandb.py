import dataclasses
import functools
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time

import jax.numpy as jnp
import numpy as np
import pytest
import wandb
from service_files import start_times, wandb_files, wandb_records, wandb_rows

from vibe_rl.metrics import (
    LogBackend,
    MetricsLogger,
    WandbBackend,
    isolated,
    read_metrics,
    resume_wandb,
)
from vibe_rl.run_dir import RunDir


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    for name, value in {"mode": "offline", "silent": True, "root_dir": str(tmp_path)}.items():
        monkeypatch.setenv(f"WANDB_{name.upper().removeprefix('ROOT_')}", str(value))
        # W&B reads the environment once in a process.
        monkeypatch.setattr(wandb.setup().settings, name, value)
    yield
    wandb.finish()


def rows_of(tmp_path):
    (file,) = wandb_files(tmp_path)
    return wandb_rows(file)


def first_of(kind, tmp_path):
    """The first record of a kind. close() awaits rows; what else W&B notes may land a bit later."""
    (file,) = wandb_files(tmp_path)
    while not (found := [r for r in wandb_records(file) if r.HasField(kind)]):
        time.sleep(0.05)
    return getattr(found[0], kind)


def asked_of_wandb(monkeypatch):
    """The arguments of every wandb.init() from now on."""
    calls = []
    init = wandb.init
    monkeypatch.setattr(wandb, "init", lambda **kwargs: calls.append(kwargs) or init(**kwargs))
    return calls


# -- rows -------------------------------------------------------------------------------------


def test_rows_are_the_records_with_the_time_at_which_they_were_written(tmp_path):
    record = {"step": 3, "loss": 0.25, "n": 2**60, "done": True, "who": "x", "none": None}
    more = {"nan": math.nan, "inf": -math.inf, "list": [1.5, 2.0], "eval": {"return": 1.0}}
    backend = WandbBackend()
    backend.log_at({**record, **more}, 3, time=1000.5, ordinal=0)
    backend.close()
    (row,) = rows_of(tmp_path)
    assert math.isnan(row.pop("nan"))
    assert row.pop("inf") == -math.inf
    assert row.pop("eval.return") == 1.0
    assert row.pop("_timestamp") == 1000.5
    del row["_step"], row["_runtime"]
    assert row == {**record, "list": [1.5, 2.0]}


def test_no_row_is_dropped_when_steps_repeat_or_go_back(tmp_path):
    steps = [10, 20, 20, 30, 5, 5, 10]
    backend = WandbBackend()
    for ordinal, step in enumerate(steps):
        backend.log_at(
            {"step": step, "loss": ordinal}, step, time=1000.0 + ordinal, ordinal=ordinal
        )
    backend.close()
    rows = rows_of(tmp_path)
    assert [(row["step"], row["loss"]) for row in rows] == [(s, i) for i, s in enumerate(steps)]
    assert [row["_timestamp"] for row in rows] == [1000.0 + i for i in range(len(steps))]


def test_charts_have_step_on_their_axis_once_there_are_steps(tmp_path):
    backend = WandbBackend()
    backend.log({"loss": 1.0})
    backend.log({"loss": 2.0}, 7)
    backend.log({"loss": 3.0, "step": 8}, 8)
    backend.log({"loss": 4.0})  # lies where the last step was
    backend.close()
    (file,) = wandb_files(tmp_path)
    records = wandb_records(file)
    (metric,) = (record.metric for record in records if record.HasField("metric"))
    assert (metric.glob_name, metric.step_metric) == ("*", "step")
    assert [row.get("step") for row in wandb_rows(file)] == [None, 7, 8, 8]


@pytest.mark.parametrize("step", [None, "text", True])
def test_a_step_that_is_no_number_gives_no_other_row_a_step(tmp_path, step):
    backend = WandbBackend()
    backend.log({"step": step, "loss": 1.0})
    backend.log({"loss": 2.0})
    backend.close()
    assert [row.get("step", "none") for row in rows_of(tmp_path)] == [step, "none"]


def test_the_record_given_is_left_as_it_is():
    backend = WandbBackend()
    record = {"loss": 1.0}
    backend.log(record, 7)
    backend.close()
    assert record == {"loss": 1.0}


def test_the_transaction_log_agrees_with_the_metrics_file(tmp_path):
    run = RunDir("example", tmp_path)
    with MetricsLogger(run.log_path(), [WandbBackend(run_dir=run.root)]) as logger:
        for i in range(300):
            logger.write({"step": i // 2, "loss": jnp.float32(0.42), "big": i * 2**40})
    rows = rows_of(tmp_path)
    for row in rows:
        del row["_step"], row["_runtime"], row["_timestamp"]
    assert rows == read_metrics(run)


# -- flush ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "method"), [(1, "flush"), (20, "flush"), (300, "flush"), (300, "close")]
)
def test_rows_survive_the_death_of_everything_after(tmp_path, count, method):
    script = f"""if True:
        import os, signal, subprocess
        from vibe_rl.metrics import WandbBackend
        backend = WandbBackend()
        for i in range({count}):
            backend.log({{"step": i, "pad": "x" * 100}}, i)
        backend.{method}()
        os.killpg(0, signal.SIGKILL)  # W&B's own process too
    """
    command = [sys.executable, "-c", script]
    killed = subprocess.run(command, check=False, start_new_session=True)
    assert killed.returncode == -signal.SIGKILL
    assert [row["step"] for row in rows_of(tmp_path)] == list(range(count))


def test_flush_says_so_if_rows_do_not_reach_the_disk(monkeypatch):
    backend = WandbBackend(settings=wandb.Settings(x_transaction_log_flush_interval=0))
    backend.log({"loss": 1.0}, 1)
    with monkeypatch.context() as patch, pytest.raises(TimeoutError, match="1 rows"):
        patch.setattr("vibe_rl.metrics.backends.wandb._FLUSH_PATIENCE_S", 0.3)
        backend.flush()
    backend.close()


def test_flush_waits_for_our_rows_in_a_run_that_writes_at_its_own_pace(tmp_path, monkeypatch):
    monkeypatch.setattr("vibe_rl.metrics.backends.wandb._FLUSH_PATIENCE_S", 2.0)
    users = wandb.init(settings=wandb.Settings(x_transaction_log_flush_interval=3.0))
    for i in range(3):
        users.log({"users": i}, step=10 * i)
    backend = WandbBackend()
    backend.log({"loss": 1.0}, 1)
    backend.flush()
    assert [row.get("loss") for row in rows_of(tmp_path)] == [None, None, 1.0]
    backend.log({"loss": 2.0}, 2)
    backend.flush()
    assert rows_of(tmp_path)[-1]["loss"] == 2.0
    backend.close()


# -- the run's id -----------------------------------------------------------------------------


def test_the_id_is_kept_and_the_next_backend_resumes_the_run(tmp_path, monkeypatch):
    asked = asked_of_wandb(monkeypatch)
    first = WandbBackend(run_dir=tmp_path / "run")
    for ordinal in range(3):
        first.log_at({"step": ordinal}, ordinal, time=1000.0, ordinal=ordinal)
    first.close()
    assert (tmp_path / "run" / "wandb_id.txt").read_text() == first.run_id

    second = resume_wandb(tmp_path / "run")
    for ordinal in range(3, 6):
        second.log_at({"step": ordinal}, ordinal, time=1000.0, ordinal=ordinal)
    second.close()
    assert second.run_id == first.run_id
    assert second.identity == first.identity
    assert "id" not in asked[0]
    assert (asked[1]["id"], asked[1]["resume"]) == (first.run_id, "must")
    # W&B's own count of rows goes on too, for both directories are to be synced to one run.
    rows = [row for file in wandb_files(tmp_path) for row in wandb_rows(file)]
    assert [row["_step"] for row in rows] == list(range(6))


def test_the_guide_s_workflow_resumes_with_a_second_logger(tmp_path, monkeypatch):
    asked = asked_of_wandb(monkeypatch)
    run = RunDir("example", tmp_path)
    with MetricsLogger(run.log_path(), [WandbBackend(project="rl", run_dir=run.root)]) as logger:
        logger.write({"step": 0, "loss": 1.0})
    again = RunDir(run_id=run.run_id, base_dir=tmp_path)
    with MetricsLogger(again.log_path(), [resume_wandb(again.root, project="rl")]) as logger:
        logger.write({"step": 50_000, "loss": 0.12})
    assert (asked[1]["resume"], asked[1]["project"]) == ("must", "rl")
    rows = [wandb_rows(file) for file in wandb_files(tmp_path)]
    assert [[row["step"] for row in part] for part in rows] == [[0], [50_000]]


def test_explicit_arguments_win_over_the_kept_id(tmp_path, monkeypatch):
    (tmp_path / "wandb_id.txt").write_text("kept")
    asked = asked_of_wandb(monkeypatch)
    WandbBackend(run_dir=tmp_path, resume="allow").close()
    assert (asked[0]["id"], asked[0]["resume"]) == ("kept", "allow")
    WandbBackend(run_dir=tmp_path, id="mine").close()
    assert asked[1]["id"] == "mine"
    assert "resume" not in asked[1]
    assert (tmp_path / "wandb_id.txt").read_text() == "mine"


def test_the_kept_id_is_replaced_as_a_whole(tmp_path):
    file, before = tmp_path / "wandb_id.txt", tmp_path / "before"
    file.write_text("kept")
    before.hardlink_to(file)
    WandbBackend(run_dir=tmp_path, id="mine").close()
    assert (file.read_text(), before.read_text()) == ("mine", "kept")


@pytest.mark.parametrize("content", [b"", b" \n", b"two\nlines", b"a/b", b"\xff\xfe", None])
def test_a_file_without_an_id_means_a_new_run_and_a_warning(tmp_path, caplog, content):
    file = tmp_path / "wandb_id.txt"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    backend = resume_wandb(tmp_path)
    backend.close()
    if content is None:  # which no new id can replace
        assert f"W&B run {backend.run_id} won't be resumed" in caplog.text
    else:
        assert file.read_text() == backend.run_id
    assert "starting a new W&B run" in caplog.text


def test_without_an_id_file_resuming_starts_a_new_run(tmp_path, caplog):
    backend = resume_wandb(tmp_path / "new")
    backend.close()
    assert (tmp_path / "new" / "wandb_id.txt").read_text() == backend.run_id
    assert not [record for record in caplog.records if record.name == "vibe_rl"]


def test_no_id_is_kept_when_init_fails_or_is_disabled(tmp_path):
    with pytest.raises(wandb.Error):
        WandbBackend(run_dir=tmp_path, id="not/valid")
    WandbBackend(run_dir=tmp_path, mode="disabled").close()
    assert not (tmp_path / "wandb_id.txt").exists()


def test_a_run_dir_that_can_not_be_written_is_an_error_before_the_run_starts(tmp_path, monkeypatch):
    asked = asked_of_wandb(monkeypatch)
    (tmp_path / "file").touch()
    for run_dir in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OSError, match=f"run_dir '{run_dir}' can't be written"):
            WandbBackend(run_dir=run_dir)
    assert not asked


@pytest.mark.parametrize("url", ["s3://bucket/run", "gs:/bucket/run"])
def test_a_run_dir_that_is_a_url_is_refused(tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"run_dir is a local directory, not the URL '{url}'"):
        WandbBackend(run_dir=url)
    assert not list(tmp_path.iterdir())


# -- several runs in one process --------------------------------------------------------------


def test_two_backends_have_two_runs(tmp_path):
    first, second = WandbBackend(run_dir=tmp_path / "1"), WandbBackend(run_dir=tmp_path / "2")
    assert first.run_id != second.run_id
    with pytest.raises(ValueError, match="open in this process already"):
        WandbBackend(run_dir=tmp_path / "2")
    for backend in (first, second):
        backend.close()
    WandbBackend(run_dir=tmp_path / "2").close()


def test_a_run_that_the_user_has_started_is_shared_unless_another_is_kept(tmp_path, caplog):
    users = wandb.init(dir=tmp_path / "users")
    shared = WandbBackend()
    assert shared.run_id == users.id
    (tmp_path / "wandb_id.txt").write_text("kept")
    kept = WandbBackend(run_dir=tmp_path)
    assert kept.run_id == "kept"
    for backend in (shared, kept):
        backend.close()
    assert not [record for record in caplog.records if record.name == "vibe_rl"]


@pytest.mark.parametrize("apart", [False, True])
def test_a_field_may_keep_records_in_runs_of_their_own(tmp_path, in_the_environment, apart):
    make = functools.partial(isolated, WandbBackend) if apart else WandbBackend
    backend = make(run_dir=tmp_path, config={"lr": 1}, split_by="seed")
    with MetricsLogger(tmp_path / "metrics.jsonl", [backend]) as logger:
        for step in range(3):
            for seed in (0, 1):
                logger.write({"step": step, "seed": seed})
        logger.write({"step": 3})
    found = {}
    for file in wandb_files(tmp_path):
        run = next(record.run for record in wandb_records(file) if record.HasField("run"))
        rows = [(row["step"], row.get("seed")) for row in wandb_rows(file)]
        found[run.run_id] = run.run_group, rows
    main = backend.run_id
    assert found.pop(main) == ("", [(3, None)])
    assert found == {
        f"{main}-seed-{seed}": (main, [(step, seed) for step in range(3)]) for seed in (0, 1)
    }
    assert (tmp_path / "wandb_id.txt").read_text() == main


# -- in a process of its own ------------------------------------------------------------------


@pytest.fixture
def in_the_environment(tmp_path, monkeypatch):
    for name, value in {"MODE": "offline", "SILENT": "true", "DIR": str(tmp_path)}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)


@pytest.mark.usefixtures("in_the_environment")
def test_an_isolated_run_has_every_row_and_is_about_the_trainer(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--seed", "3"])
    run = RunDir("example", tmp_path)
    backend = isolated(WandbBackend, run_dir=run.root)
    with MetricsLogger(run.log_path(), [backend]) as logger:
        for step in range(100):
            logger.write({"step": step, "loss": jnp.float32(0.42)})
    assert backend.run_id == (run.root / "wandb_id.txt").read_text()
    (start,) = start_times(run.log_path())
    for row, record in zip(rows_of(tmp_path), read_metrics(run), strict=True):
        assert row.pop("_timestamp") == pytest.approx(start + record["wall_time"], abs=1e-5)
        del row["_step"], row["_runtime"]
        assert row == record
    shown = first_of("environment", tmp_path)
    assert (shown.program, [*shown.args]) == ("train.py", ["--seed", "3"])


@pytest.mark.usefixtures("in_the_environment")
@pytest.mark.parametrize("make", [WandbBackend, functools.partial(isolated, WandbBackend)])
def test_a_run_that_wandb_keeps_elsewhere_is_warned_of(tmp_path, monkeypatch, caplog, make):
    (tmp_path / "file").touch()
    asked, elsewhere = tmp_path / "file" / "runs", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name, path in {"WANDB_DIR": asked, "TMPDIR": elsewhere}.items():
        monkeypatch.setenv(name, str(path))
    monkeypatch.setattr(wandb.setup().settings, "root_dir", str(asked))
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    for there in ({}, {"dir": asked}):
        make(mode="disabled", **there).close()
    backend = make(split_by="seed")
    for seed in (0, 1):
        backend.log({"seed": seed})
    backend.close()
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "vibe_rl"]
    place = f"{elsewhere}/wandb/offline-run-"
    assert f"{asked} can't be written: W&B run {backend.run_id} is in {place}" in warning
    assert "dir=" in warning
    assert len(wandb_files(elsewhere)) == 3


@pytest.mark.usefixtures("in_the_environment")
def test_when_its_process_dies_the_next_one_goes_on_with_the_same_run(tmp_path):
    backend = isolated(WandbBackend)
    with MetricsLogger(tmp_path / "metrics.jsonl", [backend]) as logger:
        logger.write({"step": 0})
        assert logger.flush()
        first = backend._process.pid
        os.kill(first, signal.SIGKILL)
        while backend._process.pid == first:
            time.sleep(0.05)
        logger.write({"step": 1})
    assert len({file.name for file in wandb_files(tmp_path)}) == 1
    rows = [row["step"] for file in wandb_files(tmp_path) for row in wandb_rows(file)]
    assert sorted(set(rows)) == [0, 1]


# -- the rest ---------------------------------------------------------------------------------


@dataclasses.dataclass
class Config:
    lr: float = 1e-3
    hidden: tuple[int, ...] = (64, 64)


@pytest.mark.parametrize("as_dataclass", [False, True])
def test_a_config_arrives_in_plain_values(tmp_path, as_dataclass):
    arrays = {"lr": jnp.float32(0.1), "gamma": np.float64(0.99), "layers": np.arange(2)}
    WandbBackend(config=Config() if as_dataclass else arrays).close()
    update = first_of("run", tmp_path).config.update
    config = {item.key: json.loads(item.value_json) for item in update}
    del config["_wandb"]
    plain = {"lr": 0.1, "gamma": 0.99, "layers": [0, 1]}
    assert config == ({"lr": 1e-3, "hidden": [64, 64]} if as_dataclass else plain)


def test_arguments_reach_wandb(tmp_path):
    WandbBackend(project="rl", entity="team", name="first", tags=["a"], run_dir=None).close()
    run = first_of("run", tmp_path)
    assert (run.project, run.entity, run.display_name, [*run.tags]) == (
        "rl",
        "team",
        "first",
        ["a"],
    )


@pytest.mark.parametrize("exit_code", [0, 3])
def test_the_run_ends_as_close_was_told(tmp_path, exit_code):
    backend = WandbBackend()
    backend.exit_code = exit_code
    backend.close()
    assert first_of("exit", tmp_path).exit_code == exit_code


@pytest.mark.usefixtures("in_the_environment")
@pytest.mark.parametrize("make", ["WandbBackend()", "isolated(WandbBackend)"])
@pytest.mark.parametrize(
    ("end", "exit_code"), [("", 0), ("sys.exit(3)", 3), ("1 / 0", 1), ("caught()", 0)]
)
def test_a_run_that_nobody_closes_ends_as_its_process_does(
    tmp_path, monkeypatch, make, end, exit_code
):
    monkeypatch.delenv("WANDB_SERVICE", raising=False)  # W&B hooks into a main process only
    script = f"""if True:
        import contextlib, sys
        from vibe_rl.metrics import MetricsLogger, WandbBackend, isolated
        def caught():
            with contextlib.suppress(SystemExit):
                sys.exit(3)
        logger = MetricsLogger("metrics.jsonl", [{make}])
        logger.write({{"loss": 1.0}})
        {end}
    """
    subprocess.run([sys.executable, "-c", script], check=False, cwd=tmp_path, capture_output=True)
    assert first_of("exit", tmp_path).exit_code == exit_code


def test_a_run_whose_block_an_exception_leaves_has_failed(tmp_path):
    with (
        pytest.raises(ZeroDivisionError),
        MetricsLogger(tmp_path / "metrics.jsonl", [WandbBackend()]) as logger,
    ):
        logger.write({"loss": 1.0})
        1 / 0  # noqa: B018
    assert first_of("exit", tmp_path).exit_code == 1


def test_a_disabled_run_takes_everything_and_keeps_nothing(tmp_path):
    backend = WandbBackend(mode="disabled")
    assert isinstance(backend, LogBackend)
    backend.log({"loss": 1.0}, 1)
    backend.flush()
    backend.close()
    assert not wandb_files(tmp_path)


@pytest.mark.parametrize("stand_in", ["None", "type(sys)('wandb')"])
def test_without_wandb_the_error_names_the_extra(stand_in):
    # Without the library, W&B's output directory ./wandb can be imported: an empty package.
    script = f"""if True:
        import sys
        sys.modules["wandb"] = {stand_in}
        from vibe_rl.metrics import WandbBackend
        try:
            WandbBackend()
        except ImportError as error:
            print(error)
    """
    command = [sys.executable, "-c", script]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "pip install 'vibe-rl[wandb]'" in run.stdout

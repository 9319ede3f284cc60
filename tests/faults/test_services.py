"""A backend's service is missing, dies or has no room: the file and the others are unaffected."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from recorders import taken
from service_files import tensorboard_scalars, wandb_files, wandb_rows

from vibe_rl.metrics import MetricsLogger, TensorBoardBackend, WandbBackend, isolated, read_metrics
from vibe_rl.metrics.feed.cursor import saved_positions

COUNT = 500


class Recorder:
    def __init__(self):
        self.taken = []

    def log(self, record, step=None):
        self.taken.append(record["i"])

    def close(self): ...


def write(logger, first=0, count=COUNT):
    for i in range(first, first + count):
        logger.write({"i": i, "loss": 1 / (i + 1)})


def numbers(path):
    return [record["i"] for record in read_metrics(path, strict=True)]


KILLED = """
import gc, os, signal, sys, warnings
from contextlib import suppress
from pathlib import Path
sys.path[:] = sys.argv[1:]
from recorders import FileBackend
from vibe_rl.metrics import MetricsLogger, TensorBoardBackend, WandbBackend
from vibe_rl.metrics.feed import tickets

os.environ.pop("WANDB_SERVICE", None)  # a service of the tests' own process
warnings.simplefilter("always", ResourceWarning)
backends = [WandbBackend(mode="offline"), FileBackend("log"), TensorBoardBackend("tensorboard")]
logger = MetricsLogger("metrics.jsonl", backends)
for i in range(1_000):
    logger.write({"i": i})
    if i == 500:
        assert logger.flush()
        tickets.PATIENCE_S = 3.0
        for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # it has ended
                words = cmdline.read_bytes().split(b"\\0")
                if words[0].endswith(b"wandb-core") and b"%d" % os.getpid() in words:
                    os.kill(int(cmdline.parent.name), signal.SIGKILL)
                    print("killed")
print("delivered", logger.close())
del backends, logger
gc.collect()
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
def test_wandb_s_service_is_killed_in_the_middle(run_python, tmp_path):
    _, out, err = run_python(KILLED, *sys.path)
    assert out.splitlines()[-2:] == ["killed", "delivered False"], err
    assert numbers(tmp_path / "metrics.jsonl") == list(range(1_000))
    assert taken(tmp_path / "log") == list(range(1_000))
    assert len(tensorboard_scalars(tmp_path / "tensorboard")["i"]) == 1_000
    assert re.search(r"WandbBackend raised (ConnectionReset|BrokenPipe)", err), err
    assert "WandbBackend did not take the last" in err
    assert "unclosed file" not in err
    (file,) = wandb_files(tmp_path / "wandb")
    assert [row["i"] for row in wandb_rows(file)][:500] == list(range(500))
    positions = saved_positions(tmp_path / "metrics.jsonl")
    ordinals = {identity.split()[0]: position.ordinal for identity, position in positions.items()}
    assert ordinals == {"WandbBackend": 501, "FileBackend": 1_000, "TensorBoardBackend": 1_000}
    sync = [sys.executable, "-m", "vibe_rl.cli", "sync", "metrics.jsonl", "--to", "wandb"]
    env = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    subprocess.run([*sync, "--option", "mode=offline"], cwd=tmp_path, env=env, check=True)
    (rest,) = {*wandb_files(tmp_path / "wandb")} - {file}
    assert [row["i"] for row in wandb_rows(rest)] == list(range(501, 1_000))


@pytest.mark.parametrize("is_isolated", [False, True])
def test_wandb_without_a_login_says_so_and_the_run_goes_on_without(
    is_isolated, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    recorder = Recorder()
    with MetricsLogger(tmp_path / "metrics.jsonl", [recorder]) as logger:
        write(logger)
        with pytest.raises(Exception, match=r"(?i)api.?key|login"):
            isolated(WandbBackend) if is_isolated else WandbBackend()
        write(logger, COUNT)
    assert numbers(logger.path) == recorder.taken == list(range(2 * COUNT))


DIRECTORIES = [(TensorBoardBackend, "log_dir"), (WandbBackend, "run_dir"), (WandbBackend, "dir")]


@pytest.mark.parametrize(("backend", "argument"), DIRECTORIES)
def test_a_directory_that_can_not_be_written_is_named_before_anything_begins(
    backend, argument, tmp_path
):
    (tmp_path / "file").touch()
    for make in (backend, lambda **kwargs: isolated(backend, **kwargs)):
        with pytest.raises(OSError, match=rf"\b{argument} '.*file/logs' can't be written"):
            make(**{argument: tmp_path / "file" / "logs"})


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="has no /proc, which root can't write")
@pytest.mark.parametrize(("backend", "argument"), DIRECTORIES)
def test_so_is_one_that_is_there_already(backend, argument):
    with pytest.raises(OSError, match=rf"\b{argument} '/proc/self' can't be written"):
        backend(**{argument: "/proc/self"})


@pytest.mark.parametrize("is_isolated", [False, True])
def test_tensorboard_s_directory_is_full_and_then_has_room(
    is_isolated, small_disk, tmp_path, caplog, monkeypatch
):
    # Less than comes while the disk is full, so that log() raises too; in its own process, flush().
    monkeypatch.setattr("vibe_rl.metrics.backends.tensorboard._BUFFER_BYTES", 1 << 14)
    make = isolated if is_isolated else lambda kind, *args: kind(*args)
    recorder = Recorder()
    backends = [recorder, make(TensorBoardBackend, small_disk)]
    with MetricsLogger(tmp_path / "metrics.jsonl", backends) as logger:
        write(logger)
        assert logger.flush()
        fill(small_disk / "ballast")
        write(logger, COUNT)
        assert not logger.flush(timeout=2)
        while len(recorder.taken) < 2 * COUNT or "No space left on device" not in caplog.text:
            time.sleep(0.01)  # an isolated backend's process has what time others leave
        assert numbers(logger.path) == recorder.taken
        assert "TensorBoardBackend raised OSError" in caplog.text
        (small_disk / "ballast").unlink()
        write(logger, 2 * COUNT)
        assert logger.flush()
    steps = [value for _, _, value in tensorboard_scalars(small_disk)["i"]]
    assert steps == list(range(3 * COUNT))


def fill(path):
    with path.open("wb", buffering=0) as ballast:
        try:
            while ballast.write(bytes(64)):
                pass
        except OSError:
            pass


def test_a_backend_whose_library_is_missing_is_named_and_no_other_is_met(run_python, tmp_path):
    script = """
import sys
sys.modules["wandb"] = sys.modules["tensorboardX"] = sys.modules["tensorboard"] = None
from vibe_rl.metrics import MetricsLogger, TensorBoardBackend, WandbBackend
with MetricsLogger("metrics.jsonl") as logger:
    for backend in (lambda: WandbBackend(), lambda: TensorBoardBackend("logs")):
        try:
            backend()
        except ImportError as error:
            logger.write({"error": str(error)})
"""
    assert run_python(script) == (0, "", "")
    first, second = [record["error"] for record in read_metrics(tmp_path / "metrics.jsonl")]
    assert "pip install 'vibe-rl[wandb]'" in first
    assert "pip install 'vibe-rl[tensorboard]'" in second

"""What lies in a run's directory is text: none of it is executed or unpickled."""

import os
import pickle
import sys
from pathlib import Path

import pytest
from recorders import FileBackend, taken

from vibe_rl.metrics import MetricsLogger, TensorBoardBackend, WandbBackend, isolated
from vibe_rl.run_dir import RunDir

MODULES = ["orjson", "numpy", "wandb", "tensorboardX", "sitecustomize", "usercustomize", "vibe_rl"]


class Bomb:
    def __init__(self, marker):
        self._marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self._marker),)


@pytest.mark.parametrize("mode", ["ab", "wb"])  # at the end of what is there, or in its place
def test_nothing_in_a_run_directory_is_executed_or_unpickled(mode, run_python, tmp_path):
    run, marker = RunDir("run", tmp_path), tmp_path / "executed"
    with MetricsLogger(run, [FileBackend(tmp_path / "log")]) as logger:
        logger.write({"i": 0, "loss": float("nan")})  # for a file of alarms
    for module in MODULES:
        code = f"import os; os.makedirs({str(marker)!r}, exist_ok=True)\n"
        for directory in (run.root, run.logs):
            (directory / f"{module}.py").write_text(code)
            (directory / f"{module}.pth").write_text(code)
    bomb = pickle.dumps(Bomb(marker)) + b"\n"  # a whole line, else it would be moved aside unread
    (run.root / "wandb_id.txt").write_bytes(bomb)
    (run.root / "config.json").write_bytes(bomb)
    for file in run.logs.glob("metrics*.json*"):
        with file.open(mode) as stream:
            stream.write(bomb)
    script = """
import contextlib, sys
sys.path[:] = sys.argv[2:]
from recorders import FileBackend
from vibe_rl.metrics import MetricsLogger, TensorBoardBackend, WandbBackend, isolated, read_metrics
from vibe_rl.run_dir import RunDir, find_runs

run = RunDir(run_id=sys.argv[1], base_dir="..")
backends = [
    FileBackend("../../log"),
    TensorBoardBackend("tensorboard"),
    isolated(FileBackend, "isolated"),
    WandbBackend(mode="offline", run_dir=run.root),
]
with MetricsLogger(run, backends) as logger:
    logger.write({"i": 1})
read_metrics(run)
find_runs("..")
with contextlib.suppress(ValueError):  # it is no JSON
    run.load_config()
"""
    paths = [path for path in sys.path if path]
    status, _, err = run_python(script, run.run_id, *paths, cwd=run.root)
    assert status == 0, err
    assert not marker.exists()
    assert taken(run.root / "isolated")[-1] == 1


@pytest.mark.parametrize("umask", [0o002, 0o027])
def test_all_files_are_made_with_the_users_umask(umask, tmp_path):
    before = os.umask(umask)
    try:
        run = RunDir("run", tmp_path / "runs")
        run.save_config({"lr": 1e-3})
        backends = [TensorBoardBackend(run.logs), WandbBackend(run_dir=run.root, mode="disabled")]
        with MetricsLogger(run, [*backends, FileBackend(tmp_path / "log")]) as logger:
            logger.write({"i": 0, "step": 0, "loss": float("nan")})
            logger.write({"i": 1, "step": 1})
        check_modes(tmp_path / "runs", umask)  # before other files take the place of some
        with run.log_path().open("ab") as file:
            file.write(b'{"torn')
        with MetricsLogger(run, resume_step=0) as logger:
            logger.write({"i": 1, "step": 1})
        names = check_modes(tmp_path / "runs", umask)
    finally:
        os.umask(before)
    for file in (
        *("config.json", "events.out.tfevents", "metrics.jsonl ", ".jsonl.torn"),
        *("metrics.writers.jsonl", "metrics.alarms.jsonl", "metrics.superseded.jsonl"),
        *("FileBackend", "TensorBoardBackend", "WandbBackend"),  # their cursors
    ):
        assert file in names + " "


def check_modes(directory, umask):
    """Gives the names of what is there, W&B's own files aside."""
    ours = [directory, *(p for p in directory.rglob("*") if "wandb" not in p.parts)]
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in ours}
    assert modes == {path.name: oct((0o777 if path.is_dir() else 0o666) & ~umask) for path in ours}
    return " ".join(modes)


@pytest.mark.skipif(not Path("/proc/net/unix").exists(), reason="looks into /proc")
def test_an_isolated_backend_talks_over_an_inherited_descriptor_only(tmp_path):
    backend = isolated(FileBackend, tmp_path / "log")
    with MetricsLogger(tmp_path / "metrics.jsonl", [backend]) as logger:
        logger.write({"i": 0})
        logger.flush()
        sockets = {
            target.removeprefix("socket:[").rstrip("]")
            for fd in Path(f"/proc/{backend.pid}/fd").iterdir()
            if (target := str(fd.readlink())).startswith("socket:")
        }
        named = {
            fields[6]
            for line in Path("/proc/net/unix").read_text().splitlines()[1:]
            if len(fields := line.split()) > 7  # it has a name, under which others could find it
        }
        network = {
            line.split()[9]
            for kind in ("tcp", "tcp6", "udp", "udp6")
            if (table := Path(f"/proc/net/{kind}")).exists()
            for line in table.read_text().splitlines()[1:]
        }
    assert 1 <= len(sockets) <= 2
    assert not sockets & (named | network)

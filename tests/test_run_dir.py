import dataclasses
import math
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from vibe_rl.run_dir import RunDir, find_runs


@pytest.fixture
def run(tmp_path):
    return RunDir("dqn", tmp_path)


def everything_under(directory):
    return sorted(path.relative_to(directory) for path in directory.rglob("*"))


def names_in(directory):
    return sorted(path.name for path in directory.iterdir())


def make_checkpoints(run, *steps):
    for step in steps:
        run.checkpoint_dir(step).mkdir()
        (run.checkpoint_dir(step) / "params").write_bytes(b"0")


class TestLayout:
    def test_a_new_run_is_named_after_experiment_and_time(self, tmp_path):
        run = RunDir("dqn_cartpole", tmp_path)
        assert re.fullmatch(r"dqn_cartpole_\d{8}_\d{6}", run.root.name)
        assert run.root.parent == tmp_path
        names = ["artifacts", "checkpoints", "logs", "videos"]
        assert names_in(run.root) == names
        assert [run.artifacts, run.checkpoints, run.logs, run.videos] == [
            run.root / name for name in names
        ]

    def test_defaults_are_runs_and_default(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        run = RunDir()
        assert run.root.parent == tmp_path / "runs"
        assert run.root.name.startswith("default_")

    def test_it_stays_where_it_is_when_the_program_changes_directory(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        run = RunDir("dqn")
        os.chdir("/")
        assert run.log_path().parent.is_dir()

    def test_home_is_expanded(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        assert RunDir("dqn", "~/runs").root.parent == tmp_path / "runs"

    def test_paths_of_files(self, run):
        assert run.log_path() == run.logs / "metrics.jsonl"
        assert run.log_path("eval.jsonl") == run.logs / "eval.jsonl"
        assert run.artifact_path("policy.npz") == run.artifacts / "policy.npz"
        assert run.video_path(1000) == run.videos / "eval_step_000000001000.mp4"
        assert run.video_path(7, "train") == run.videos / "train_step_000000000007.mp4"

    def test_it_is_a_path_a_repr_and_a_value(self, run):
        assert os.fspath(run) == str(run.root)
        assert Path(run) == run.root
        assert repr(run) == f"RunDir({str(run.root)!r})"
        again = RunDir(base_dir=run.root.parent, run_id=run.run_id)
        assert again == run
        assert len({again, run}) == 1
        assert run != run.root

    @pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/a", "../a", "a\\b", "a\0b"])
    def test_a_name_that_is_not_one_path_component_is_refused(self, tmp_path, name):
        base = tmp_path / "runs"
        for call in (
            lambda: RunDir(name, base),
            lambda: RunDir(base_dir=base, run_id=name),
        ):
            with pytest.raises(ValueError, match=re.escape(repr(name))):
                call()
        assert everything_under(tmp_path) == []
        run = RunDir("dqn", base)
        for call in (
            lambda: run.log_path(name),
            lambda: run.artifact_path(name),
            lambda: run.video_path(0, name),
            lambda: run.save_config({}, name),
            lambda: run.load_config(name),
        ):
            with pytest.raises(ValueError, match="one path component"):
                call()

    def test_a_name_that_is_no_string_is_refused(self, tmp_path):
        with pytest.raises(TypeError, match="experiment_name must be a string, got 3"):
            RunDir(3, tmp_path)

    @pytest.mark.parametrize("url", ["gs://bucket/runs", "s3://b", "file:///tmp", Path("gs://b/x")])
    def test_a_url_is_refused(self, tmp_path, monkeypatch, url):
        monkeypatch.chdir(tmp_path)
        for call in (lambda: RunDir("dqn", url), lambda: find_runs(url)):
            with pytest.raises(ValueError, match="local"):
                call()
        assert everything_under(tmp_path) == []

    @pytest.mark.parametrize("make", [lambda base: RunDir("dqn", base), find_runs])
    def test_the_home_of_nobody_is_refused(self, tmp_path, monkeypatch, make):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ValueError, match=r"base_dir begins with ~ .*, got '~nosuchuser/runs'"):
            make("~nosuchuser/runs")
        assert everything_under(tmp_path) == []

    def test_importing_it_imports_no_jax(self):
        code = "import sys, vibe_rl.run_dir; sys.exit('jax' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestOneDirectoryPerRun:
    def test_runs_of_the_same_second(self, tmp_path, monkeypatch):
        monkeypatch.setattr(time, "strftime", lambda *_: "20260216_143022")
        names = [RunDir("dqn", tmp_path).root.name for _ in range(12)]
        assert names[:3] == [f"dqn_20260216_143022{end}" for end in ("", "_2", "_3")]
        assert [run.root.name for run in find_runs(tmp_path)] == names

    def test_threads_and_processes_that_start_together(self, tmp_path):
        code = f"""if True:
            import sys
            from vibe_rl.run_dir import RunDir
            sys.stdin.readline()
            for _ in range(50):
                print(RunDir("dqn", {str(tmp_path)!r}).run_id)
        """
        command = [sys.executable, "-c", code]
        processes = [
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=0
            )
            for _ in range(4)
        ]
        for process in processes:
            process.stdin.write("go\n")
        with ThreadPoolExecutor(8) as pool:
            runs = list(pool.map(lambda _: RunDir("dqn", tmp_path).run_id, range(50)))
        for process in processes:
            runs += process.communicate()[0].split()
        assert len(runs) == len(set(runs)) == 250

    def test_run_id_opens_or_creates_exactly_that_directory(self, tmp_path):
        created = RunDir(base_dir=tmp_path, run_id="my_run")
        assert created.root == tmp_path / "my_run"
        created.log_path().write_text("kept")
        opened = RunDir("ignored", tmp_path, run_id="my_run")
        assert opened.log_path().read_text() == "kept"
        assert names_in(tmp_path) == ["my_run"]

    def test_a_file_in_the_way_is_an_error(self, tmp_path):
        (tmp_path / "my_run").write_text("")
        with pytest.raises(OSError, match="my_run"):
            RunDir(base_dir=tmp_path, run_id="my_run")


class TestCheckpoints:
    def test_none_yet(self, run):
        assert run.list_checkpoints() == []
        assert run.latest_checkpoint() is None
        assert run.best_checkpoint() is None
        assert run.cleanup_checkpoints() == []

    def test_they_are_in_the_order_of_steps(self, run):
        steps = [0, 2, 10, 1000, 5_000_000_000, 10**13]
        make_checkpoints(run, *reversed(steps))
        assert run.list_checkpoints() == [run.checkpoint_dir(step) for step in steps]
        assert run.latest_checkpoint() == run.checkpoint_dir(10**13)
        names = [path.name for path in run.list_checkpoints()[:-1]]
        assert names == sorted(names)

    def test_only_what_checkpoint_dir_names_is_a_checkpoint(self, run):
        make_checkpoints(run, 1000)
        others = ["step_1000", "step_7", "step_x", "step_", "best_so_far"]
        others += [
            "step_000000002000.orbax-checkpoint-tmp-3",
            "step_\u0660\u0667",
            "step_\u00b2",
            "0000000001000",
        ]
        for name in others:
            (run.checkpoints / name).mkdir()
        (run.checkpoints / "step_000000009000").write_text("a file")
        assert run.list_checkpoints() == [run.checkpoint_dir(1000)]

    def test_checkpoint_dir_makes_nothing(self, run):
        run.checkpoint_dir(1000)
        assert names_in(run.checkpoints) == []

    def test_a_step_may_be_an_array_scalar(self, run):
        for step in (np.int64(1000), jnp.int32(1000), np.uint16(1000)):
            assert run.checkpoint_dir(step) == run.checkpoint_dir(1000)

    def test_a_step_that_is_no_step_is_refused(self, run):
        with pytest.raises(ValueError, match="got -1"):
            run.checkpoint_dir(-1)
        with pytest.raises(TypeError):
            run.checkpoint_dir(1.5)

    def test_best_survives(self, run):
        make_checkpoints(run, 1000, 2000, 3000)
        run.mark_best(3000)
        run.mark_best(np.int64(1000))
        again = RunDir(base_dir=run.root.parent, run_id=run.run_id)
        assert again.best_checkpoint() == run.checkpoint_dir(1000)

    def test_a_best_that_does_not_exist_is_an_error(self, run):
        make_checkpoints(run, 1000)
        with pytest.raises(FileNotFoundError, match=r"step_0+2000; there are: .*step_0+1000"):
            run.mark_best(2000)
        assert run.best_checkpoint() is None
        run.mark_best(1000)
        (run.checkpoint_dir(1000) / "params").unlink()
        run.checkpoint_dir(1000).rmdir()
        with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
            run.best_checkpoint()
        assert run.cleanup_checkpoints() == []

    def test_cleanup_keeps_the_latest_and_the_best(self, run):
        make_checkpoints(run, *range(10))
        run.mark_best(2)
        assert run.cleanup_checkpoints() == [run.checkpoint_dir(step) for step in (0, 1, 3, 4)]
        assert run.list_checkpoints() == [run.checkpoint_dir(step) for step in (2, 5, 6, 7, 8, 9)]
        run.cleanup_checkpoints(keep=1)
        assert run.list_checkpoints() == [run.checkpoint_dir(step) for step in (2, 9)]
        assert names_in(run.checkpoints) == [
            "best", "step_000000000002", "step_000000000009"
        ]  # fmt: skip

    def test_a_best_among_the_latest_takes_no_place_of_its_own(self, run):
        make_checkpoints(run, 1, 2, 3)
        run.mark_best(3)
        run.cleanup_checkpoints(keep=1)
        assert run.list_checkpoints() == [run.checkpoint_dir(3)]

    @pytest.mark.parametrize("keep", [0, -1])
    def test_keep_less_than_one_is_refused(self, run, keep):
        make_checkpoints(run, 1)
        with pytest.raises(ValueError, match=f"got {keep}"):
            run.cleanup_checkpoints(keep=keep)
        assert len(run.list_checkpoints()) == 1

    def test_an_interrupted_cleanup_leaves_no_half_checkpoint(self, run, monkeypatch):
        make_checkpoints(run, 1, 2, 3)

        def interrupted(path):
            (path / "params").unlink()
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("shutil.rmtree", interrupted)
            run.cleanup_checkpoints(keep=2)
        assert run.list_checkpoints() == [run.checkpoint_dir(2), run.checkpoint_dir(3)]
        make_checkpoints(run, 1)
        run.cleanup_checkpoints(keep=2)
        assert names_in(run.checkpoints) == ["step_000000000002", "step_000000000003"]


@dataclasses.dataclass(frozen=True)
class Config:
    env_id: str = "CartPole-v1"
    hidden: tuple[int, ...] = (64, 64)
    clip: float = math.inf


class TestConfig:
    def test_it_is_saved_and_loaded(self, run):
        assert run.save_config(Config()) == run.root / "config.json"
        plain = {"env_id": "CartPole-v1", "hidden": [64, 64], "clip": math.inf}
        assert run.load_config() == plain

    def test_it_may_have_a_name_of_its_own(self, run):
        run.save_config({"lr": 1})
        assert run.save_config({"lr": 2}, filename="sweep.json") == run.root / "sweep.json"
        assert run.load_config("sweep.json") == {"lr": 2}
        assert run.load_config() == {"lr": 1}

    def test_what_it_cannot_hold_leaves_the_config_before(self, run):
        run.save_config({"lr": 1})
        with pytest.raises(TypeError, match=r"config\['act'\]"):
            run.save_config({"act": len})
        assert run.load_config() == {"lr": 1}
        assert "config.json" in names_in(run.root)
        assert len(names_in(run.root)) == 5

    def test_a_missing_or_broken_file_is_named(self, run):
        with pytest.raises(FileNotFoundError, match=r"config\.json"):
            run.load_config()
        (run.root / "config.json").write_text("{")
        with pytest.raises(ValueError, match=r"config\.json is no valid config"):
            run.load_config()


class TestFindRuns:
    def test_a_missing_directory_holds_none(self, tmp_path):
        assert find_runs(tmp_path / "runs") == []
        assert everything_under(tmp_path) == []

    def test_they_come_in_the_order_of_time(self, tmp_path):
        names = [
            "z_20250101_000000",
            "a_20260101_000000",
            "b_20260101_000000_2",
            "b_20260101_000000_10",
            "a_20260101_000001",
        ]
        for name in reversed(names):
            (tmp_path / name).mkdir()
        assert [run.run_id for run in find_runs(tmp_path)] == names
        assert all(isinstance(run, RunDir) for run in find_runs(tmp_path))

    def test_they_are_those_of_the_experiment(self, tmp_path):
        for name in ("dqn", "dqn_cartpole", "dqn_20260101_000000"):
            RunDir(name, tmp_path)
        RunDir(base_dir=tmp_path, run_id="dqn")
        for name in ("dqn_cartpole", "dqn_20260101_000000"):
            (run,) = find_runs(tmp_path, name)
            assert run.run_id.startswith(f"{name}_2")
        assert len(find_runs(tmp_path, "dqn")) == 2
        assert len(find_runs(tmp_path)) == 4
        assert find_runs(tmp_path, "cartpole") == []

    def test_a_run_with_a_name_of_its_own_stands_where_it_was_last_changed(self, tmp_path):
        for name in ("a_20250101_000000", "own", "a_20260101_000000"):
            RunDir(base_dir=tmp_path, run_id=name)
        changed = time.mktime((2025, 6, 1, 0, 0, 0, 0, 0, -1))
        os.utime(tmp_path / "own", (changed, changed))
        assert [run.run_id for run in find_runs(tmp_path)] == [
            "a_20250101_000000", "own", "a_20260101_000000"
        ]  # fmt: skip

    def test_what_is_no_run_is_passed_over(self, tmp_path):
        (tmp_path / "plots").mkdir()
        (tmp_path / "notes.txt").write_text("")
        (tmp_path / "dqn_20260101_000000").write_text("a file")
        assert find_runs(tmp_path) == []

    def test_it_creates_nothing(self, tmp_path):
        (tmp_path / "dqn_20260101_000000").mkdir()
        before = everything_under(tmp_path)
        (run,) = find_runs(tmp_path)
        run.log_path()
        run.checkpoint_dir(1)
        run.video_path(1)
        run.artifact_path("x")
        assert run.list_checkpoints() == []
        assert run.latest_checkpoint() is None
        assert run.best_checkpoint() is None
        assert run.cleanup_checkpoints() == []
        assert everything_under(tmp_path) == before

    def test_a_base_dir_that_is_a_file_is_an_error(self, tmp_path):
        (tmp_path / "runs").write_text("")
        with pytest.raises(NotADirectoryError):
            find_runs(tmp_path / "runs")

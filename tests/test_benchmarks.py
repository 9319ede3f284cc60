"""That every benchmark runs and says what it should; its figures mean nothing here."""

import os
import subprocess
import sys

import pytest

from benchmarks import __main__ as command
from benchmarks import peers, plots, tables
from benchmarks.results import Report, Result, Spread
from benchmarks.targets import compared

# Compiling is most of what a quick run does, and the speed of what it gives doesn't matter.
UNOPTIMIZED = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}

RESULTS = {
    "loop": [
        Result("a step of 150 µs", "vibe_rl, file only", {"x reading": Spread(1.5, 1.4, 1.6)}),
        Result("a step of 150 µs", "wandb", {"x reading": Spread(7, 7, 7)}),
        Result("a step of 150 µs", "aim", why="it doesn't | open"),
    ],
    "growth": [Result("backends", "1", {"write, µs": Spread(2, 2, 2)})],
}


def report():
    return Report("2026-01-01 12:00", "2 cores", {"Python": "3.11"}, {"clu": "why"}, dict(RESULTS))


@pytest.mark.timeout(400)  # isolated backends run only when a core is free
@pytest.mark.parametrize("name", command.BENCHMARKS)
def test_a_benchmark_runs(name, tmp_path):
    saved = tmp_path / "results.json"
    arguments = [name, "--quick", "--peers", "jsonl,queuehandler", "--json", saved]
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        env=os.environ | UNOPTIMIZED,
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert "Python" in run.stdout  # the machine it ran on
    results = Report.load(saved).results[name]
    assert [(each.case, each.why) for each in results if each.why] == []
    assert all(each.figures for each in results)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("script", ["learning.py", "soak.py", "training.py"])
def test_a_script_of_its_own_runs(script):
    command = ["-m", "benchmarks.training"] if script == "training.py" else [f"benchmarks/{script}"]
    run = subprocess.run(
        [sys.executable, *command, "--quick"],
        env=os.environ | UNOPTIMIZED,
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert {"learning.py": "|---|---|", "soak.py": "accounted for", "training.py": "logged / "}[
        script
    ] in run.stdout


def test_one_that_fails_leaves_the_others_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(command.BENCHMARKS, "broken", "no_such_module")
    saved = tmp_path / "results.json"
    arguments = ["broken", "throughput", "--quick", "--peers", "jsonl", "--json", str(saved)]
    with pytest.raises(SystemExit) as exit_:
        command.main(arguments)
    assert exit_.value.code == 1
    assert "FAILED  broken" in capsys.readouterr().out
    assert list(Report.load(saved).results) == ["throughput"]


def test_what_another_one_measures_too_is_run_only_by_name(monkeypatch):
    named = []

    def refuse(line, **_):
        named.append(line[3])
        raise subprocess.SubprocessError

    monkeypatch.setattr(subprocess, "run", refuse)
    with pytest.raises(SystemExit):
        command.main([])
    assert named == [name for name in command.BENCHMARKS if name != "backends"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["writ"], "no benchmark 'writ'"), (["--peers", "wb"], "no peer 'wb'")],
)
def test_an_unknown_name_is_a_usage_error(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        command.main(arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_a_peer_that_is_not_installed_is_listed_with_the_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "loguru", None)
    found, absent = peers.available(["jsonl", "loguru"])
    assert [peer.name for peer in found] == ["jsonl"]
    assert absent["loguru"].startswith("ModuleNotFoundError")


def test_without_what_it_measures_with_the_extra_is_named():
    script = "import runpy, sys; sys.modules['psutil'] = None; runpy.run_module('benchmarks')"
    run = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert run.returncode == 1
    assert run.stderr == "python -m benchmarks needs psutil: pip install -e '.[bench]'\n"


def test_a_report_survives_its_file(tmp_path):
    report().save(tmp_path / "results.json")
    assert Report.load(tmp_path / "results.json") == report()


def test_targets_are_compared_with_the_medians():
    [(where, target, value)] = compared(report())
    assert "file only" in where
    assert value == 1.5
    assert not target.is_met(value)


def test_the_page_gets_its_tables_again_and_again(tmp_path):
    page = tmp_path / "benchmarks.md"
    page.write_text(tables.PAGE.read_text())
    tables.write_docs(report(), page)
    once = page.read_text()
    assert "| vibe_rl, file only | 1.500 (1.400 to 1.600) |" in once
    assert "| aim | it doesn't / open |" in once
    assert "clu (why)" in once
    assert "**missed**" in once
    tables.write_docs(report(), page)
    assert page.read_text() == once


def test_pictures_are_the_same_for_the_same_figures(tmp_path):
    plots.draw(report(), tmp_path / "1.svg")
    plots.draw(report(), tmp_path / "2.svg")
    assert (tmp_path / "1.svg").read_bytes() == (tmp_path / "2.svg").read_bytes()
    assert b"wandb" in (tmp_path / "1.svg").read_bytes()

"""The command itself: quick help, one-line errors, exit codes."""

import os
import re
import subprocess
import sys

import pytest

import vibe_rl
from vibe_rl.cli import main
from vibe_rl.metrics import MetricsLogger

HEAVY = (
    "jax",
    "numpy",
    "flax",
    "optax",
    "gymnax",
    "rich",
    "wandb",
    "tensorboardX",
    "matplotlib",
    "textual",
    "plotille",
)


def python(*args):
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["train", "ppo", "--help"]])
def test_asking_for_help_imports_nothing_heavy(args):
    result = python(
        "-c",
        f"""
import sys
from vibe_rl.cli import main
try:
    code = main({args})
except SystemExit as stop:
    code = stop.code
print(code, [name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
""",
    )
    assert result.stderr.strip() == "0 []"
    assert result.stdout.strip()


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vibe-rl {vibe_rl.__version__}\n"


def test_help_names_the_verbs(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "train" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "Expected one of {train, runs, show, tail, watch, plot, sync}"),
        (["fly"], "Unrecognized options: fly; Available subcommands: train, runs"),
        (["train"], "Expected one of {ppo, sac, dqn, resume}"),
        (["train", "ppo", "--speed=9"], "--speed=9"),
        (["train", "ppo", "--seed=x"], "Error parsing --seed"),
        (["runs", "--newest", "x"], "Error parsing -n/--newest"),
        (["runs", "--sort", "x"], "'written'"),
        (["plot", "latest"], "Missing from vibe-rl plot: -o FILE"),
        (["sync", "--to", "wandb"], "Missing from vibe-rl sync: RUN"),
    ],
)
def test_what_cannot_be_understood_is_said_in_one_line(args, message, capsys):
    assert main(args) == 2
    err = capsys.readouterr().err
    assert err.startswith("vibe-rl: error: ")
    assert message in err
    assert "--help" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("module", "args", "extra"),
    [
        ("tyro", ["--help"], "vibe-rl[cli]"),
        ("gymnax", ["train", "ppo"], "vibe-rl[train]"),
        ("flax", ["train", "ppo"], "vibe-rl[train]"),
    ],
)
def test_a_missing_library_is_one_line_that_names_the_extra(module, args, extra, tmp_path):
    result = python(
        "-c",
        f"""
import os, sys
os.chdir({str(tmp_path)!r})
sys.modules[{module!r}] = None
from vibe_rl.cli import main
sys.exit(main({args}))
""",
    )
    assert result.returncode == 1
    assert re.fullmatch(r"vibe-rl: error: .*\n", result.stderr)
    assert module in result.stderr
    assert f"pip install '{extra}'" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "verb"),
    [
        (["runs", "--newest", "x"], " runs"),
        (["train", "ppo", "--sed", "3"], " train"),
        (["fly"], ""),
    ],
)
def test_an_error_names_the_help_of_its_verb(args, verb, capsys):
    assert main(args) == 2
    assert capsys.readouterr().err.endswith(f" vibe-rl{verb} --help\n")


@pytest.mark.parametrize("verb", ["runs", "plot", "watch"])
def test_help_speaks_to_people(verb):
    text = subprocess.run(
        [sys.executable, "-m", "vibe_rl.cli", verb, "--help"],
        env={**os.environ, "COLUMNS": "300"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert not re.search(r"None|\(default: ('')?\)", text)
    assert not re.search(r"^│ {10,}[a-z]", text, re.MULTILINE)  # the rest of a line


def test_an_error_is_one_line_whatever_it_names(capsys):
    assert main(["show", "a\nb\x1b[2J"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "\x1b" not in err


@pytest.mark.parametrize(
    "args", [["sync", "--to", "tensorboard"], ["plot", "-o", "\x1b[2J.png"], ["show"]]
)
def test_what_is_said_of_a_run_does_nothing_to_the_terminal(args, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with MetricsLogger("a\x1b[2J/logs/metrics.jsonl") as logger:
        if args != ["show"]:
            logger.write({"step": 1, "loss\x1b[2J": 1.0})
    assert main([args[0], "a\x1b[2J", *args[1:]]) == 0
    said = "".join(capsys.readouterr())
    assert r"\x1b[2J" in said
    assert "\x1b[2J" not in said


def test_the_module_is_the_command():
    result = python("-m", "vibe_rl.cli", "--version")
    assert (result.returncode, result.stdout) == (0, f"vibe-rl {vibe_rl.__version__}\n")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_a_reader_that_has_gone_is_no_error(option):
    command = [sys.executable, "-m", "vibe_rl.cli", option]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        process.stdout.close()  # long before it prints
        assert process.stderr.read() == b""
    assert process.returncode == 141

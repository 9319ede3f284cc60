"""Every Python block of README and manual runs, page by page, top to bottom; so do docstrings."""

import doctest
import importlib
import os
import pkgutil
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vibe_rl
import vibe_rl.metrics
from vibe_rl.run_dir import RunDir

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = ["vibe_rl", *(m.name for m in pkgutil.walk_packages(vibe_rl.__path__, "vibe_rl."))]


BLOCK = re.compile(
    r"(?P<not_run>^<!-- not run[^\n:]*: [^\n]+ -->\n)?"
    r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<code>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    """Python in one namespace; a block with a title is a file; commands see what they have made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    modules = set(sys.modules)
    namespace = {"__name__": "__main__"}
    sigterm = signal.getsignal(signal.SIGTERM)  # for which pages install handlers
    try:
        for number, block in enumerate(BLOCK.finditer(page.read_text()), start=1):
            if not block["not_run"]:
                run_block(block, f"{page.name}, block {number}", namespace)
    finally:
        signal.signal(signal.SIGTERM, sigterm)
        for name in set(sys.modules) - modules:
            if getattr(sys.modules[name], "__file__", None) == str(tmp_path / f"{name}.py"):
                del sys.modules[name]  # what the page has defined


def run_block(block, name, namespace):
    if block["title"]:
        Path(block["title"]).write_text(block["code"])
    elif block["language"] == "python":
        exec(compile(block["code"], name, "exec"), namespace)  # noqa: S102
    elif block["language"] == "sh":
        script = ["bash", "-euo", "pipefail", "-c", block["code"]]
        ended = subprocess.run(script, capture_output=True, text=True, check=False, timeout=100)
        assert ended.returncode == 0, f"{name}: {ended.stdout}{ended.stderr}"
    else:
        assert block["language"] in {"json", "text"}, f"{name}: {block['language']} is no language"


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_docstrings_run(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if module.endswith("__main__"):
        pytest.skip("importing it runs it")
    monkeypatch.setenv("WANDB_MODE", "offline")
    usual = {"jax": jax, "jnp": jnp, "np": np, "RunDir": RunDir}
    usual |= {name: getattr(vibe_rl.metrics, name) for name in vibe_rl.metrics.__all__}
    failed, _ = doctest.testmod(importlib.import_module(module), extraglobs=usual)
    assert failed == 0


def test_ci_runs_the_test_line_of_the_readme():
    blocks = BLOCK.finditer((ROOT / "README.md").read_text())
    run, test = [block["code"] for block in blocks if block["language"] == "sh"]
    assert "vibe-rl train ppo" in run
    assert f"({test.strip()})\n" in (ROOT / ".ci" / "run").read_text()


def test_ci_fails_when_the_installation_fails(tmp_path):
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    commands = tmp_path / ".venv" / "bin"
    commands.mkdir(parents=True)
    for name, code in {
        "pip": 1,
        "python": 0,
        "ruff": 0,
        "mypy": 0,
        "mkdocs": 0,
        "python3": 0,
    }.items():
        (commands / name).write_text(f"#!/bin/sh\nexit {code}\n")
        (commands / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}"}
    run = subprocess.run(["bash", ".ci/run"], cwd=tmp_path, env=environment, check=False)
    assert run.returncode == 1

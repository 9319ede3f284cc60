"""Every block of README and manual does what it says, page by page; so do docstrings' examples."""

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
from vibe_rl.metrics import read_metrics
from vibe_rl.metrics.jsonl import encode
from vibe_rl.run_dir import RunDir

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = ["vibe_rl", *(m.name for m in pkgutil.walk_packages(vibe_rl.__path__, "vibe_rl."))]

BLOCK = re.compile(
    r"(?P<not_run>^<!-- not run[^\n:]*: [^\n]+ -->\n)?"
    r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<code>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)
FENCE = re.compile(r"^\s*(```|~~~)", re.MULTILINE)


def blocks(page):
    """A page's blocks, all of them."""
    text = page.read_text()
    found = list(BLOCK.finditer(text))
    lines = len(FENCE.findall(text))
    assert lines == 2 * len(found), f"{page.name}: {lines} lines of fences, {len(found)} blocks"
    return found


NAMES_FILES = [page for page in PAGES if any(block["title"] for block in blocks(page))]


@pytest.fixture(autouse=True)
def unoptimized(monkeypatch):
    """Compiling is most of the work here, and how fast the result is says nothing."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # of the processes that are started
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """Somebody in an empty directory, with the commands of this environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p not in NAMES_FILES], ids=lambda p: str(p.relative_to(ROOT))
)
def test_the_blocks_of_a_page_run_one_after_the_other(page, reader):
    """Python in one namespace."""
    namespace = {"__name__": "__main__"}
    sigterm = signal.getsignal(signal.SIGTERM)  # for which pages install handlers
    try:
        for number, block in enumerate(blocks(page), start=1):
            name = f"{page.name}, block {number}"
            if block["language"] == "python" and not block["not_run"]:
                exec(compile(block["code"], name, "exec"), namespace)  # noqa: S102
            else:
                check_block(block, name)
    finally:
        signal.signal(signal.SIGTERM, sigterm)


@pytest.mark.parametrize("page", NAMES_FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_each_block_of_a_page_that_names_files_runs_by_itself_and_again(page, reader):
    """Python as files of one directory, in which the earlier ones lie; without a name, too."""
    commands = "".join(block["code"] for block in blocks(page) if block["language"] == "sh")
    for attempt in ("at first", "again"):
        for number, block in enumerate(blocks(page), start=1):
            name = f"{page.name}, block {number}, {attempt}"
            if block["language"] == "python" and not block["not_run"]:
                file = Path(block["title"] or f"block_{number}.py")
                file.write_text(block["code"])
                if f"python {file}" not in commands:  # else the page itself says when
                    run([sys.executable, "-W", "error", file], name)
            else:
                check_block(block, name)


def check_block(block, name):
    """Run commands, read lines of the file format back; whatever else is there needs a reason."""
    if block["not_run"]:
        return
    if block["language"] == "sh":
        run(["bash", "-euo", "pipefail", "-c", block["code"]], name)
    elif block["language"] == "json":
        Path("example.jsonl").write_text(block["code"])
        lines = b"".join(encode(record) for record in read_metrics("example.jsonl", strict=True))
        assert lines.decode() == block["code"], name
    else:
        pytest.fail(f"{name}: {block['language']} can't be checked; say why, as `not run: ...`")


def run(command, name):
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert ended.returncode == 0, f"{name}: {ended.stdout}{ended.stderr}"


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


def test_every_public_name_of_the_logger_is_on_the_api_page():
    named = set(re.findall(r"\w+$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE))
    assert set(vibe_rl.metrics.__all__) <= named


def test_ci_runs_the_test_line_of_the_readme():
    train, test = [b["code"] for b in blocks(ROOT / "README.md") if b["language"] == "sh"]
    assert "vibe-rl train ppo" in train
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
    ended = subprocess.run(["bash", ".ci/run"], cwd=tmp_path, env=environment, check=False)
    assert ended.returncode == 1

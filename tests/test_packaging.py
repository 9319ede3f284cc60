"""What is installed: the wheel's files, its metadata, and the extras that errors name."""

import importlib.metadata
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import vibe_rl

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    built = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", built],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    named = {name for name in wheel.namelist() if ".dist-info/" not in name}
    there = {path for path in (ROOT / "vibe_rl").rglob("*") if "__pycache__" not in path.parts}
    assert named == {str(path.relative_to(ROOT)) for path in there if path.is_file()}
    assert "vibe_rl/py.typed" in named


def test_the_metadata_is_complete_and_has_the_one_version(wheel):
    info = f"vibe_rl-{vibe_rl.__version__}.dist-info"
    fields = metadata(wheel)
    assert fields["version"] == vibe_rl.__version__
    assert fields["license_expression"] == "MIT"
    for name in ("summary", "author", "keywords", "classifier", "requires_python", "description"):
        assert fields[name], name
    assert f"{info}/licenses/LICENSE" in wheel.namelist()
    assert f"## {vibe_rl.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_each_extra_that_an_error_or_a_page_names_exists(wheel):
    named = set()
    for file in [*(ROOT / "vibe_rl").rglob("*.py"), *ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for names in re.findall(r"(?:vibe-rl|'\.)\[([\w,]+)\]", file.read_text()):
            named |= set(names.split(","))
    assert {"train", "cli", "wandb", "tensorboard", "plot"} <= named
    assert named <= set(metadata(wheel)["provides_extra"])


def metadata(wheel):
    info = zipfile.Path(wheel, f"vibe_rl-{vibe_rl.__version__}.dist-info/")
    return importlib.metadata.PathDistribution(info).metadata.json

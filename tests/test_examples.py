"""The scripts of `docs/examples/` run as they are, in a small size."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vibe_rl.metrics import read_metrics
from vibe_rl.run_dir import find_runs

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
SMALL = {
    "supervised.py": (["--steps", "100"], 100, "accuracy"),
    "purejaxrl_style.py": (["--updates", "20"], 8 * 20, "seed"),
    "gymnasium_loop.py": (["--episodes", "5"], 2 * 5, "actor_loss"),
    "multi_process.py": (["--steps", "20"], 20, "loss"),
}
ENVIRONMENT = {
    "PYTHONWARNINGS": "error::RuntimeWarning",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiling is most of what so small a run does
}


def test_each_example_is_tried():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_an_example_runs_and_logs(name, tmp_path):
    arguments, count, field = SMALL[name]
    subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        cwd=tmp_path,
        env=os.environ | ENVIRONMENT,
        check=True,
        timeout=100,
    )
    (run,) = find_runs(tmp_path / "runs")
    records = read_metrics(run)
    assert len(records) == count
    assert field in records[-1]

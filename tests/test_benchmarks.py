import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = [script for script in sorted(BENCHMARKS.glob("*.py")) if script.name != "timing.py"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_benchmark_runs(script):
    command = [sys.executable, script, "--quick"]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "JAX" in run.stdout  # the machine it ran on

"""That every benchmark runs and says what it should; its figures mean nothing here."""

import json
import subprocess
import sys

import pytest

from benchmarks.__main__ import BENCHMARKS

PEERS = ["jsonl", "queuehandler"]


def benchmark(*arguments):
    command = [sys.executable, "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_runs(name, tmp_path):
    saved = tmp_path / "results.json"
    run = benchmark(name, "--quick", "--peers", ",".join(PEERS), "--json", saved)
    assert run.returncode == 0, run.stderr
    assert "Python" in run.stdout  # the machine it ran on
    report = json.loads(saved.read_text())
    assert report["results"][name]
    assert [each["why"] for each in report["results"][name] if each["why"]] == []
    assert all(each["figures"] for each in report["results"][name])

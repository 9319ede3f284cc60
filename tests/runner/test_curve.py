"""The picture that a run leaves."""

import logging

import numpy as np
import pytest

from vibe_rl.metrics import MetricsLogger
from vibe_rl.run_dir import RunDir
from vibe_rl.runner import curve

RETURNS = np.array([0.0, 2.0, 4.0])


@pytest.fixture
def run(tmp_path):
    run = RunDir("drawn", tmp_path)
    with MetricsLogger(run.log_path()) as logger:
        for step, value in enumerate(RETURNS):
            logger.write({"step": step, "episode_return": value})
    return run


def test_a_run_is_drawn(run, caplog):
    curve.save_learning_curve(run, RETURNS)
    path = run.root / "artifacts" / "learning_curve.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert caplog.records == []


def test_before_the_first_episode_nothing_is_drawn_nor_said(tmp_path, caplog):
    run = RunDir("short", tmp_path)
    curve.save_learning_curve(run, np.array([np.nan, np.nan]))
    assert list(run.root.rglob("*.png")) == []
    assert caplog.records == []


def test_without_matplotlib_nothing_is_drawn_nor_said(run, monkeypatch, caplog):
    monkeypatch.setattr(curve, "find_spec", lambda name: None)
    curve.save_learning_curve(run, RETURNS)
    assert list(run.root.rglob("*.png")) == []
    assert caplog.records == []


def test_a_picture_that_fails_is_a_warning(run, monkeypatch, caplog):
    def fail(groups):
        raise RuntimeError("no font")

    monkeypatch.setattr(curve, "plot_runs", fail)
    with caplog.at_level(logging.WARNING):
        curve.save_learning_curve(run, RETURNS)
    assert [record.getMessage() for record in caplog.records] == [
        "The run has no learning curve: no font"
    ]

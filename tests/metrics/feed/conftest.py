"""Fixtures of the feeds' tests."""

import pytest


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


@pytest.fixture
def hurry(monkeypatch):
    """Make seconds hundredths, where a feed waits."""
    monkeypatch.setattr("vibe_rl.metrics.feed.delivery._RETRY_S", (1e-5, 1e-4, 1e-3))
    monkeypatch.setattr("vibe_rl.metrics.feed.delivery._DOWN_S", (0.01, 0.05))

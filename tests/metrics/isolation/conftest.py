"""Fixtures of the isolated backends' tests."""

import pytest


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


@pytest.fixture
def log(tmp_path):
    return tmp_path / "backend"

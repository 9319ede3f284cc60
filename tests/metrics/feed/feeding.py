"""What tests of feeds share: a backend that keeps what it gets, and a logger for it."""

import contextlib

import pytest

from vibe_rl.metrics import MetricsLogger
from vibe_rl.metrics.feed import tickets


class Backend:
    """Keeps what it gets; `fails(record, n)` says whether call `n`, from 0, raises."""

    def __init__(self, fails=lambda record, n: False, error=RuntimeError):
        self.records = []
        self.steps = []
        self.calls = self.closed = self.flushed = 0
        self._fails = fails
        self._error = error

    def log(self, record, step=None):
        n, self.calls = self.calls, self.calls + 1
        if self._fails(record, n):
            raise self._error(f"call {n}")
        self.records.append(record)
        self.steps.append(step)

    def flush(self):
        self.flushed += 1

    def close(self):
        self.closed += 1

    @property
    def numbers(self):
        return [record["i"] for record in self.records]


@contextlib.contextmanager
def impatient(seconds):
    """Have flush() and close() give a backend up so soon; for only as long as they are to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tickets, "PATIENCE_S", seconds)
        yield


def write(path, n, *backends, **options):
    with MetricsLogger(path, backends=backends, **options) as logger:
        for i in range(n):
            logger.write({"i": i})
    return logger

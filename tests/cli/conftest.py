"""What tests of the command share."""

import logging

import pytest


@pytest.fixture(autouse=True)
def _restore_logging():
    """The command sets logging up, once for its process, which is also that of other tests."""
    logger = logging.getLogger("vibe_rl")
    level, propagate, handlers = logger.level, logger.propagate, logger.handlers[:]
    yield
    logger.setLevel(level)
    logger.propagate, logger.handlers[:] = propagate, handlers

"""The services that records are fanned out to: one file each, behind one small protocol."""

from vibe_rl.metrics.backends.protocol import LogBackend

__all__ = ["LogBackend"]

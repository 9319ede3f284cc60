"""Logging from inside compiled functions: `emit`, `scan` and `pack`."""

"""The logger: `MetricsLogger`, reading back, and console logging."""

"""What logging costs, beside the alternatives: `python -m benchmarks`."""

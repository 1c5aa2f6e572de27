"""What the daemon costs, beside doing without it: run with `python -m benchmarks`."""

"""What fedpt costs, against the shortest way to do the same: `python -m benchmarks.NAME`."""

"""Measurements that are repeated by hand, with their results in results/: `python -m benchmarks.<what>`."""

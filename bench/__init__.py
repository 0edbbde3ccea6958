"""Benchmarks beside genuine peers on the same machine in the same run."""

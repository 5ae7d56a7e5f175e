"""Benchmarks: ratios against a peer or a limit measured in the same run, and error rates with intervals."""

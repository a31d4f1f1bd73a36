"""Benchmarks: our own figures, everything durable as it is by default. `python -m bench --help`.

A benchmark is not a test: nothing here asserts a time. Ratios of one run say more than single numbers: machines are noisy.
"""

"""Benchmarks: one script a question; `python -m bench` runs them all and prints one table."""

"""Readers of files from strangers, given damaged and hostile ones; see benchmarks/fuzz.py."""

"""Benchmarks: each file is a command that measures something and writes its figures, table or picture to `results/`."""

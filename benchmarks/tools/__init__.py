"""Hold what the benchmarks share: timing, the machine beside each figure, photographs."""

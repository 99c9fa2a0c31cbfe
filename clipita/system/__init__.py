"""Adapt to the machine and the process: CPUs, memory, forks, progress on terminals, types of arrays."""

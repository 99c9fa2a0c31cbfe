"""Read the towers of each layout of checkpoints, under our names."""

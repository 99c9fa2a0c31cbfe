"""Define the towers: their sizes, their weights, and their Flax modules."""

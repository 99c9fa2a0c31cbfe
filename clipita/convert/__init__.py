"""Convert checkpoints of other libraries to bundles, and bundles to other forms."""

"""Read, check and write bundles, the folders that models are kept in."""

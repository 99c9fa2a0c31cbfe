"""Find where in a picture something is."""

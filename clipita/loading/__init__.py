"""Load models by name: from the package, a folder or the hub."""

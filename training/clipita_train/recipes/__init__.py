"""Recipes of models that were trained, or can be."""

"""Recipes that train whole towers on pairs of photographs and captions."""

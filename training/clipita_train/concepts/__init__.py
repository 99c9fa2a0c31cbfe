"""Recipes that train projections between locked towers, on photographs of known concepts."""

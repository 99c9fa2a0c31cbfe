"""Captions: reading them from published files, and deciding which of them to use."""

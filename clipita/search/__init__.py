"""Embed the photographs of a folder into a file that can be searched."""

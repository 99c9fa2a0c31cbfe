"""Pretrained towers: reading them, cutting them down, and computing their features."""

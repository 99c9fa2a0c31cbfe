"""Pairs of images and captions from the web: reading, downloading, translating and describing them."""

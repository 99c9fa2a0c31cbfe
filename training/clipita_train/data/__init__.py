"""Photographs and captions: readers, filters, near-duplicates, and the builder of data sets."""

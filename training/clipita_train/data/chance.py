"""Chance that is the same on every machine and in every run: a hash in the place of a random number."""

import hashlib


def fraction_of(text: str) -> float:
    """A number in [0, 1) that is the same for a text wherever it is asked for: what a share of names is chosen by."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64

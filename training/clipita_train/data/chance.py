"""Replace random numbers by hashes of names, so that every machine and run chooses the same."""

import hashlib


def fraction_of(text: str) -> float:
    """Return a number in [0, 1) that depends on the text alone, e.g. to choose a share of all names."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64

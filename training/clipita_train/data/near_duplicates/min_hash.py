"""Compute MinHash signatures of captions, and find captions that share most of their words."""

import re
import zlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from clipita.system.arrays import Array
from clipita_train.data.near_duplicates.groups import equal_pairs, unique_pairs

SIGNATURE = 64  # number of minima of a caption, 32 bits each
# Bands of 4 minima. Captions with a Jaccard index of 0.8 share a band with a probability of 0.9998, with 0.5 of 0.64.
BANDS = 16
NEAR_SHARE = 0.8  # of the minima; it estimates the Jaccard index with a standard error of 0.05

_WORD = re.compile(r"\w+")
_MULTIPLY, _ADD = np.random.default_rng(2021).integers(0, 1 << 63, (2, SIGNATURE), np.uint64)


def caption_signatures(captions: Sequence[str]) -> Array:
    """Compute a MinHash signature of each caption from its words and pairs of words, without case and punctuation.

    Captions with the same words and pairs have the same signature; so have all captions without a letter or digit.

    Returns:
        (N, SIGNATURE) uint32.

    Source: Broder, "On the resemblance and containment of documents" (1997).
    """
    hashed = [_shingles(caption) for caption in captions]
    if not hashed:
        return np.zeros((0, SIGNATURE), np.uint32)
    starts = np.cumsum([0, *map(len, hashed[:-1])])
    shingles = np.array([value for values in hashed for value in values], np.uint64)
    # The upper half of a * x + b modulo 2 ** 64 is a universal hash of 32 bits (Dietzfelbinger 1996).
    minima = [
        np.minimum.reduceat((shingles * multiply + add) >> np.uint64(32), starts)
        for multiply, add in zip(_MULTIPLY, _ADD, strict=True)
    ]
    return np.stack(minima, axis=1).astype(np.uint32)


def signature_keys(signatures: Array) -> Array:
    """Hash each signature, a row of `signatures` (N, M) uint32, to one number: (N,) uint64."""
    return signatures.astype(np.uint64) @ (_MULTIPLY[: signatures.shape[1]] | np.uint64(1))


def near_signatures(signatures: Array, *, share: float = NEAR_SHARE) -> Array:
    """Find pairs of signatures that share at least `share` of their minima.

    Only signatures that have a band in common are compared.

    Args:
        signatures: (N, SIGNATURE) uint32, all different.
        share: From 0 to 1.

    Returns:
        (P, 2) int64, pairs i < j.
    """
    found = [
        pairs[(signatures[pairs[:, 0]] == signatures[pairs[:, 1]]).mean(1) >= share]
        for band in np.split(signatures, BANDS, axis=1)
        for pairs in equal_pairs(signature_keys(band))
    ]
    return unique_pairs(found)


def _shingles(caption: str) -> list[int]:
    words = _WORD.findall(caption.lower())
    pairs = [" ".join(pair) for pair in pairwise(words)]
    return [zlib.crc32(shingle.encode()) for shingle in dict.fromkeys(words + pairs)] or [0]

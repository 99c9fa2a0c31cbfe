"""MinHash signatures of captions, and the search for captions that share most of their words."""

import re
import zlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from clipita_train.arrays import Array
from clipita_train.data.near_duplicates.groups import equal_pairs, unique_pairs

SIGNATURE = 64  # minima of a caption, of 32 bits each
BANDS = 16  # of 4 minima: captions with a Jaccard index of 0.8 share one with a probability of 0.9998, of 0.5 with 0.64
NEAR_SHARE = 0.8  # of the minima, which is the Jaccard index within a standard error of 0.05

_WORD = re.compile(r"\w+")
_MULTIPLY, _ADD = np.random.default_rng(2021).integers(0, 1 << 63, (2, SIGNATURE), np.uint64)


def caption_signatures(captions: Sequence[str]) -> Array:
    """(N, SIGNATURE) uint32: MinHash of each caption's words and pairs of words, without case and punctuation.

    Captions that share all of them have the same signature; so have all those without a letter or digit.

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
    """(N,) uint64: one number for each of `signatures` (N, M) uint32, the same where all of them are."""
    return signatures.astype(np.uint64) @ (_MULTIPLY[: signatures.shape[1]] | np.uint64(1))


def near_signatures(signatures: Array, *, share: float = NEAR_SHARE) -> Array:
    """(P, 2) int64: pairs i < j of `signatures` (N, SIGNATURE), no two the same, that share so many of their minima.

    Compared are those that have a band in common.
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

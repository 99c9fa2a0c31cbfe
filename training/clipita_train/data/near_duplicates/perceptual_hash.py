"""Compute perceptual hashes of photographs, and find hashes that differ in few bits."""

from itertools import combinations, pairwise
from math import comb

import numpy as np

from clipita.images.pixels import ImageInput, Preprocessing, load_pixels
from clipita.system.arrays import Array
from clipita_train.data.near_duplicates.groups import equal_pairs, near_marked, unique_pairs

NEAR_BITS = 4

_SIDE, _KEPT = 32, 8
_COSINES = np.cos(np.pi / _SIDE * np.outer(np.arange(_KEPT), np.arange(_SIDE) + 0.5))  # (8, 32), a DCT-II
_SQUARE = Preprocessing(_SIDE, "squash", "bilinear", (0, 0, 0), (1, 1, 1))
_GRAY = np.array([0.299, 0.587, 0.114])


def perceptual_hash(image: ImageInput, *, name: str = "the image") -> int:
    """Return a hash of 63 bits that changes little when a photograph is compressed or resized.

    The image is reduced to 32 x 32 gray pixels. Each bit says whether one of the lowest frequencies, without the mean,
    is above their median. Half of the bits are set, so distances are even.

    Measured on 841 photographs of six collections in eight versions each (JPEG of quality 30 and 75, WebP, PNG, 0.25 to
    1.7 times the size, squeezed to a square): 99.7 % of the versions are within `NEAR_BITS` of the original, where 88 %
    are within 3 bits of a difference hash. Of photographs cut by 2 % at every edge, 67 % are. Among the 18,091
    different photographs of Flickr8k and Tiny ImageNet, no pair is as near by this hash, and 3 pairs are by the
    difference hash.

    Args:
        image: Any image that clipita takes.
        name: What messages call it.

    Raises:
        ImageError: The image cannot be read.

    Source: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010).
    """
    gray = load_pixels(image, _SQUARE, name=name) @ _GRAY  # (32, 32)
    lowest = np.round(_COSINES @ gray @ _COSINES.T, 3).ravel()[1:]  # rounded, so that an even image has zeros
    return int.from_bytes(np.packbits(lowest > np.median(lowest)).tobytes(), "big") >> 1


def near_hashes(hashes: Array, *, bits: int = NEAR_BITS) -> Array:
    """Find all pairs of hashes that differ in at most `bits` bits.

    The 64 bits are cut into `bits` + m blocks. Near hashes agree in at least m blocks, so for each choice of m blocks
    the hashes that agree there are compared. No pair is missed; m is chosen for the least work.

    Args:
        hashes: (N,) uint64, all different.
        bits: Largest distance.

    Returns:
        (P, 2) int64, pairs i < j.

    Source: Norouzi et al., "Fast Exact Search in Hamming Space with Multi-Index Hashing" (2014).
    """
    shared = min(range(1, 7), key=lambda m: comb(bits + m, m) * (20 + len(hashes) / 2 ** (64 * m // (bits + m))))
    edges = np.linspace(0, 64, bits + shared + 1).astype(int)
    blocks = [((1 << int(stop - start)) - 1) << int(start) for start, stop in pairwise(edges)]
    found = [
        pairs[np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]) <= bits]
        for chosen in combinations(blocks, shared)
        for pairs in equal_pairs(hashes & np.uint64(sum(chosen)))
    ]
    return unique_pairs(found)


def near_any(hashes: Array, references: Array, *, bits: int = NEAR_BITS) -> Array:
    """Return (N,) bool: which `hashes` (N,) uint64 are within `bits` bits of any of `references` (M,) uint64."""
    values = np.unique(np.concatenate([hashes, references]))
    is_reference = np.isin(values, references)
    near = near_marked(near_hashes(values, bits=bits), is_reference)
    return near[np.searchsorted(values, hashes)]

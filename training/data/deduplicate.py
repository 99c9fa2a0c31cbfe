"""Keeps development photographs out of training, and training photographs from counting twice."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from training.data.sources import Example

NEAR = 3  # of 64 bits: copies that were resized or compressed again differ by less, other photographs by about 32
_CHUNK = 4096  # rows of the distance matrix at once: 4096 x 20,000 x 8 bytes = 655 MB


@dataclass
class Report:
    """What was left out, and why."""

    unreadable: list[str] = field(default_factory=list)  # "path: reason"
    same_file: list[str] = field(default_factory=list)
    near_development: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{len(self.unreadable)} unreadable, {len(self.same_file)} repeated in training, "
            f"{len(self.near_development)} training photographs that a development set has too"
        )


def deduplicate(examples: Sequence[Example], root: Path) -> tuple[list[Example], Report]:
    """Drops files that do not decode, training files with the same bytes as an earlier one, and training photographs
    within `NEAR` bits of a development photograph. Development sets lose only what does not decode.
    """
    report = Report()
    digests, hashes, readable = [], [], []
    for example in examples:
        path = root / example.path
        try:
            data = path.read_bytes()
            hashes.append(difference_hash(path))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            report.unreadable.append(f"{example.path}: {error}")
            continue
        digests.append(hashlib.sha1(data).digest())
        readable.append(example)

    development = [i for i, example in enumerate(readable) if example.split == "dev"]
    near = near_any(np.array(hashes, np.uint64), np.array(hashes, np.uint64)[development])
    kept, seen = [], set()
    for i, example in enumerate(readable):
        if example.split != "dev":
            if near[i]:
                report.near_development.append(example.path)
                continue
            if digests[i] in seen:
                report.same_file.append(example.path)
                continue
            seen.add(digests[i])
        kept.append(example)
    return kept, report


def difference_hash(path: Path) -> int:
    """64 bits: whether each of 8 x 8 grey cells is brighter than its right neighbour.

    Source: Krawetz, "Kind of Like That" (hackerfactor.com, 2013).
    """
    with Image.open(path) as image:
        image.draft("L", (72, 64))  # a JPEG is decoded near that size
        grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    return int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes(), "big")


def near_any(hashes: np.ndarray, references: np.ndarray) -> np.ndarray:
    """(N,) uint64, (M,) uint64 -> (N,) bool: within `NEAR` bits of one of the references."""
    near = np.zeros(len(hashes), bool)
    if len(references):
        for start in range(0, len(hashes), _CHUNK):
            bits = np.bitwise_count(hashes[start : start + _CHUNK, None] ^ references)
            near[start : start + _CHUNK] = (bits <= NEAR).any(1)
    return near

"""Remove training photographs that a development set has too, and repeated files."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from clipita.errors import ImageError
from clipita.system.arrays import Array
from clipita.system.cpus import usable_cpus
from clipita_train.data.near_duplicates.perceptual_hash import near_any, perceptual_hash
from clipita_train.data.photographs.example import Example


@dataclass
class DeduplicationReport:
    """The photographs that were left out, by reason."""

    unreadable: list[str] = field(default_factory=list)  # "path: reason"
    same_file: list[str] = field(default_factory=list)
    near_development: list[str] = field(default_factory=list)
    near_kept_out: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{len(self.unreadable)} unreadable, {len(self.same_file)} repeated in training, "
            f"{len(self.near_development)} training photographs that a development set has too, "
            f"{len(self.near_kept_out)} that are kept out for evaluation"
        )


def deduplicate(
    examples: Sequence[Example], root: Path, kept_out: Array | None = None
) -> tuple[list[Example], DeduplicationReport]:
    """Leave out unreadable files, repeated training files, and training photographs that a development set has.

    A training file is repeated if an earlier one has the same bytes. A development set has it if one of its photographs
    is within `NEAR_BITS`. Of development sets only unreadable files are left out.

    Args:
        examples: All examples.
        root: The folder that their paths are relative to.
        kept_out: (M,) uint64, hashes of photographs that are no examples and that training must not see, or None.

    Returns:
        The examples that are kept, and a report on the others.
    """
    report = DeduplicationReport()
    digests, hashes, readable = [], [], []
    with ThreadPoolExecutor(usable_cpus()) as pool:
        hashed_files = pool.map(_hashes, [root / example.path for example in examples])
        for example, hashed in zip(examples, hashed_files, strict=True):
            if isinstance(hashed, Exception):
                report.unreadable.append(f"{example.path}: {hashed}")
                continue
            digests.append(hashed[0])
            hashes.append(hashed[1])
            readable.append(example)

    development = [i for i, example in enumerate(readable) if example.split == "dev"]
    ours = np.array(hashes, np.uint64)
    near = near_any(ours, ours[development])
    reserved = np.zeros(len(ours), bool) if kept_out is None else near_any(ours, kept_out)
    kept, seen = [], set()
    for i, example in enumerate(readable):
        if example.split != "dev":
            if near[i]:
                report.near_development.append(example.path)
                continue
            if reserved[i]:
                report.near_kept_out.append(example.path)
                continue
            if digests[i] in seen:
                report.same_file.append(example.path)
                continue
            seen.add(digests[i])
        kept.append(example)
    return kept, report


def _hashes(path: Path) -> tuple[bytes, int] | Exception:
    """Return the hash of a file's bytes and that of its picture, or why the file cannot be read."""
    try:
        data = path.read_bytes()
        return hashlib.sha1(data).digest(), perceptual_hash(data)
    except (OSError, ImageError) as error:
        return error

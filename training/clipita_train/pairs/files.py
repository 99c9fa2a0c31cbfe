"""Open a recipe's sources as numbered pairs, and split them into training and validation."""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, assert_never

import numpy as np

from clipita_train.data.chance import fraction_of
from clipita_train.data.pairs.readers import json_lines, mscoco_it, sidecars
from clipita_train.data.pairs.rows import Bad, Row
from clipita_train.data.shards import INDEX, ShardReader
from clipita_train.pairs.recipe import PairSource

ReportUnreadable = Callable[[str, str], None]  # called with the place of what cannot be read, and the reason


class Pair(NamedTuple):
    """A photograph with its captions."""

    key: str  # its name in messages
    image: Path | bytes
    captions: tuple[str, ...]


class Pairs(Protocol):
    """The pairs of one source, by number."""

    @property
    def photographs(self) -> Sequence[str]:
        """The name of each photograph, the same on every machine; pairs of one photograph have the same name."""
        ...

    @property
    def fingerprint(self) -> str:
        """A hash of all names and captions, but not of the pixels."""
        ...

    def __len__(self) -> int: ...
    def __getitem__(self, number: int) -> Pair: ...
    def file(self, number: int) -> str:
        """Return a text that only the photograph of this pair has on this machine."""
        ...


class ListedPairs:
    """Pairs in memory, with photographs in files: about 0.5 KB each, so a million pairs take 0.5 GB."""

    def __init__(self, rows: Iterable[Row | Bad], images: Path, report: ReportUnreadable) -> None:
        self._rows: list[tuple[str, str, tuple[str, ...]]] = []
        self.photographs: list[str] = []
        digest = hashlib.sha256()
        for row in rows:
            if isinstance(row, Bad):
                report(row.place, row.reason)
                continue
            name = os.path.relpath(str(row.image), images)
            self._rows.append((f"{row.source}: {row.key}", str(row.image), row.captions))
            self.photographs.append(name)
            digest.update("\0".join((name, *row.captions, "\n")).encode())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Pair:
        key, image, captions = self._rows[number]
        return Pair(key, Path(image), captions)

    def file(self, number: int) -> str:
        """Return the path of the photograph."""
        return self._rows[number][1]


class ShardedPairs:
    """Pairs in ArrayRecord shards, read when they are needed; each record is one photograph."""

    def __init__(self, folder: Path) -> None:
        self._records = ShardReader(folder)
        self.photographs = [str(number) for number in range(len(self._records))]
        self.fingerprint = hashlib.sha256((folder / INDEX).read_bytes()).hexdigest()

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, number: int) -> Pair:
        return Pair(*self._records[number])

    def file(self, number: int) -> str:
        """Return the fingerprint of the set of shards, and the number of the record."""
        return f"{self.fingerprint}:{number}"


def open_pairs(source: PairSource, root: Path, report: ReportUnreadable) -> Pairs:
    """Open the pairs of a source; broken entries of its list are reported and left out.

    Args:
        source: The source.
        root: The folder that its paths are relative to.
        report: Called with the place and the reason of each broken entry.

    Raises:
        FileNotFoundError: Its file or folder does not exist.
        ShardError: A shard is missing, cut off or damaged.
        ValueError: No pair of the source can be read.
    """
    path, images = root / source.path, root / source.images
    for name, place in (("path", path), ("images", images)):
        if not place.exists():
            raise FileNotFoundError(f"source {source.name!r}: its {name} {str(place)!r} is not there; see data.root")
    about = {"source": source.name, "licence": ""}
    match source.format:
        case "shards":
            return ShardedPairs(path)
        case "json_lines":
            rows = json_lines(path, images, **about)
        case "mscoco_it":
            rows = mscoco_it(path, images)
        case "sidecars":
            rows, images = sidecars(path, **about), path
        case _:
            assert_never(source.format)
    pairs = ListedPairs(rows, images, lambda place, reason: report(f"{source.name}: {place}", reason))
    if not len(pairs):
        raise ValueError(f"source {source.name!r} has no pair that can be read in {str(path)!r}")
    return pairs


class Part:
    """The training or validation pairs of a source, each with its number among all pairs of all sources."""

    def __init__(self, pairs: Pairs, places: np.ndarray, first: int) -> None:
        self._pairs, self._places, self._first = pairs, places, first

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> tuple[int, Pair]:
        place = int(self._places[index])
        return self._first + place, self._pairs[place]


def split_pairs(sources: Sequence[Pairs], shares: Sequence[float]) -> tuple[list[Part], list[Part]]:
    """Split the pairs of each source into training and validation.

    Photographs are chosen for validation by a hash of their names, so that a photograph with several pairs is on one
    side only, and stays there when pairs are added.

    Args:
        sources: The pairs of each source.
        shares: The share of each source's photographs that is for validation.

    Returns:
        The training parts and the validation parts, one of each for every source.
    """
    train, validation, first = [], [], 0
    for pairs, share in zip(sources, shares, strict=True):
        held_out = np.array([fraction_of(name) < share for name in pairs.photographs], bool)
        train.append(Part(pairs, np.flatnonzero(~held_out), first))
        validation.append(Part(pairs, np.flatnonzero(held_out), first))
        first += len(pairs)
    return train, validation

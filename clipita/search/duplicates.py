"""Group the copies of a picture in an archive: files of the same bytes, and the same picture saved in another way.

Pictures with near vectors are looked at again, as thumbnails: another size, format or quality, or a little more light,
does not change these much. A cropped copy is another picture here.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from clipita.errors import ImageError
from clipita.images.pixels import load_picture
from clipita.search.cosines import HalfVectors, cosines
from clipita.search.store import Photo

# Of 250 pictures the copies in JPEG quality 40 have cosines of at least this (95 % of them), those in half the size too
# where the half is still as large as what the model sees. So have pictures that resemble each other; thumbnails decide.
MIN_COSINE = 0.85
_SIDE = 24  # of a thumbnail, in pixels
# Mean difference of two thumbnails whose gray values have mean 0 and spread 1. Copies in half the size: 0.02, of 99 %
# below 0.07; in quality 40: 99 % below 0.03; 25 % brighter: median 0.05. Pictures that resemble each other: 0.1 on.
_MAX_DIFFERENCE = 0.075
_MAX_COLOR_DIFFERENCE = 48.0  # of the mean red, green and blue, of 255: pictures of one color have no other features
_ROWS = 512
_READ_AT_ONCE = 16384  # thumbnails that are kept: 2.3 kB each


@dataclasses.dataclass(frozen=True)
class DuplicateGroup:
    """Files that show the same picture.

    Attributes:
        paths: Below the folder of photographs, the best first: the one with the most pixels and, of those that have as
            many, the one with the most bytes.
        same_bytes: Whether all of them hold the same bytes.
    """

    paths: tuple[str, ...]
    same_bytes: bool


def find_duplicates(
    photos: Path,
    files: list[Photo],
    vectors: HalfVectors,
    positions: npt.NDArray[np.int64],
    *,
    on_done: Callable[[int], object],
) -> list[DuplicateGroup]:
    """Group the files that show the same picture.

    Args:
        photos: The folder of photographs; those that may be copies are read again.
        files: All files of the archive.
        vectors: (N, E) of all contents.
        positions: (P,) those of the contents that files hold.
        on_done: Is called with how many more contents have been compared with all others.

    Returns:
        The groups of at least two files, in the order of their first paths.
    """
    holders: dict[int, list[Photo]] = defaultdict(list)
    for file in files:
        holders[file.content].append(file)
    leader = {position: position for position in positions.tolist()}

    def lead(position: int) -> int:
        while leader[position] != position:
            leader[position] = leader[leader[position]]
            position = leader[position]
        return position

    @lru_cache(maxsize=_READ_AT_ONCE)
    def thumbnail(position: int) -> _Thumbnail | None:
        return _thumbnail(photos / holders[position][0].key)

    held = vectors[positions]
    for start in range(0, len(held), _ROWS):
        block = held[start : start + _ROWS].astype(np.float32)
        near = cosines(held[start:], block) >= MIN_COSINE  # (N - start, rows): each pair once
        for other, row in zip(*np.nonzero(near), strict=True):
            if other <= row:
                continue
            one, two = int(positions[start + row]), int(positions[start + other])
            if lead(one) != lead(two) and _is_same(thumbnail(one), thumbnail(two)):
                leader[lead(two)] = lead(one)
        on_done(len(block))
    groups: dict[int, list[Photo]] = defaultdict(list)
    for position in positions.tolist():
        groups[lead(position)] += holders[position]
    found = [_group(photos, group) for group in groups.values() if len(group) > 1]
    return sorted(found, key=lambda group: group.paths[0])


def _group(photos: Path, files: list[Photo]) -> DuplicateGroup:
    def worth(file: Photo) -> tuple[int, int, str]:
        try:
            size = (photos / file.key).stat().st_size
        except OSError:  # gone since
            size = 0
        return -(file.width or 0) * (file.height or 0), -size, file.key

    best_first = sorted(files, key=worth)
    return DuplicateGroup(tuple(file.key for file in best_first), len({file.content for file in files}) == 1)


class _Thumbnail(NamedTuple):
    """Holds what pictures are compared by: gray values (24, 24), mean 0 and spread 1, and the mean color (3,)."""

    gray: npt.NDArray[np.float32]
    color: npt.NDArray[np.float32]


def _thumbnail(path: Path) -> _Thumbnail | None:
    """Return the thumbnail of a photograph; None if it cannot be read any more."""
    try:
        picture, _ = load_picture(path, max_side=256, name=str(path))
    except ImageError:
        return None
    small = picture.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    gray = np.asarray(small.convert("L"), np.float32)
    color = np.asarray(small, np.float32).mean(axis=(0, 1))
    return _Thumbnail((gray - gray.mean()) / max(float(gray.std()), 1.0), color)


def _is_same(one: _Thumbnail | None, two: _Thumbnail | None) -> bool:
    return (
        one is not None
        and two is not None
        and float(np.abs(one.gray - two.gray).mean()) < _MAX_DIFFERENCE
        and float(np.abs(one.color - two.color).max()) < _MAX_COLOR_DIFFERENCE
    )

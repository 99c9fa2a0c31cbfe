"""Make the maps that `Model.locate` returns, and lay those of one or several squares over the whole picture."""

import math
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from clipita.backends.backend import Backend
from clipita.errors import BackendError
from clipita.images.seen import Seen
from clipita.system.arrays import FloatArray, IntArray, Pixels

if TYPE_CHECKING:
    from clipita.towers.positions import Meaning

Method: TypeAlias = Literal["auto", "exact", "patches", "occlusion"]

_TINY = float(np.finfo(np.float32).tiny)

# A square is divided into at least so many cells each way, so that the edges of what a tower sees fall on cells.
_CELLS = 32
# Cells of the whole picture along one side: only of strips 500 times as long as wide, cells are larger than a square's.
_MOST_CELLS = 1 << 14

# The hidden square is a quarter of the picture's side, and moves by half of its own: every cell of 8 x 8 is hidden by
# four squares, those at the edge by squares that stand out of the picture. 81 runs of the tower for a square.
_STEPS = 8
_BATCH = 27  # hidden pictures in one call, 5 MB of pixels at 256 x 256


class Asked(NamedTuple):
    """Holds a picture, the texts that are looked for in it, and what looks.

    Attributes:
        name: The model's.
        backend: Runs its towers.
        squares: (T, S, S, 3) that the tower sees of the picture.
        texts: (Q, E) of unit norm.
        gray: The level of a hiding square, 0..255.
    """

    name: str
    backend: Backend
    squares: Pixels
    texts: FloatArray
    gray: int


class TileMaps(NamedTuple):
    """Holds the maps of a picture's squares.

    Attributes:
        cosines: (Q,) of the whole picture with each text.
        maps: (T, Q, side, side) for the T squares.
        are_shares: Whether places that two squares see have the sum of both, as they count twice in the cosine.
    """

    cosines: FloatArray
    maps: FloatArray
    are_shares: bool


def check_method(method: object) -> None:
    """Raise a ValueError if `method` is no `Method`."""
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {', '.join(map(repr, get_args(Method)))}, not {method!r}")


def tile_maps(asked: Asked, method: Method, known: "Meaning | None") -> tuple[Method, TileMaps]:
    """Make the maps of a picture's squares.

    Args:
        asked: The picture and the texts.
        method: As for `Model.locate`.
        known: What the vectors of the tower's positions mean, or None if it gives none.

    Returns:
        The method that was taken, and its maps.

    Raises:
        BackendError: The tower gives no map by that method.
    """
    if method == "auto":
        method = "exact" if known == "exact" else "occlusion"
    if method == "exact" and known == "exact":
        return method, _exact_maps(asked)
    if method == "patches" and known is not None:
        return method, _patch_maps(asked)
    if method == "occlusion":
        return method, _occlusion_maps(asked)
    others = "'occlusion'" if known is None else "'patches' or 'occlusion'"
    raise BackendError(f"the image tower of {asked.name!r} gives no map by method={method!r}: choose {others}.")


def _exact_maps(asked: Asked) -> TileMaps:
    """Split the cosine of a picture into the shares of its positions, in one pass."""
    _, backend, squares, texts, _ = asked
    vectors = backend.encode_positions(squares)  # (T, N, E)
    means = vectors.mean(axis=1)  # (T, E)
    norms = np.maximum(np.linalg.norm(means, axis=-1), _TINY)
    whole, length = _whole(means / norms[:, None])
    shares = vectors @ texts.T / (norms[:, None, None] * vectors.shape[1] * len(squares) * length)
    return TileMaps(texts @ whole, _in_squares(shares), are_shares=True)


def _patch_maps(asked: Asked) -> TileMaps:
    """Compare each position by itself with the texts."""
    _, backend, squares, texts, _ = asked
    vectors = backend.encode_positions(squares)
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), _TINY)
    whole, _ = _whole(backend.encode_pixels(squares))
    return TileMaps(texts @ whole, _in_squares(vectors @ texts.T), are_shares=False)


def _occlusion_maps(asked: Asked) -> TileMaps:
    """Measure what the cosine loses when a gray square hides a part of the picture, moved over all of it."""
    _, backend, squares, texts, gray = asked
    embeddings = backend.encode_pixels(squares)
    whole, length = _whole(embeddings)
    size = squares.shape[1]
    edges = [round(size * step / _STEPS) for step in range(_STEPS + 1)]
    places = [(row, column) for row in range(_STEPS + 1) for column in range(_STEPS + 1)]
    maps = np.zeros((len(squares), len(texts), _STEPS, _STEPS), np.float32)
    for number, square in enumerate(squares):
        drops: list[FloatArray] = []
        for start in range(0, len(places), _BATCH):
            chosen = places[start : start + _BATCH]
            hidden = np.repeat(square[None], len(chosen), axis=0)
            for picture, (row, column) in zip(hidden, chosen, strict=True):
                picture[_span(edges, row), _span(edges, column)] = gray
            drops.append((embeddings[number] - backend.encode_pixels(hidden)) @ texts.T)
        lost = np.concatenate(drops).T.reshape(len(texts), _STEPS + 1, _STEPS + 1)
        mean = (lost[:, :-1, :-1] + lost[:, :-1, 1:] + lost[:, 1:, :-1] + lost[:, 1:, 1:]) / 4
        maps[number] = mean / (len(squares) * length)
    return TileMaps(texts @ whole, maps, are_shares=True)


def over_picture(tiles: TileMaps, seen: Seen) -> FloatArray:
    """Lay the maps of squares over the whole picture, as (Q, rows, columns) with NaN where no square is.

    Each value is spread over a block of cells, so that a square's edges are at most half a cell from where they are.
    """
    count, queries, side, _ = tiles.maps.shape
    repeat = math.ceil(_CELLS / side)
    left, top, right, bottom = seen.boxes[0]
    columns, across = _cells(side * repeat, right - left)
    rows, down = _cells(side * repeat, bottom - top)
    total = np.zeros((queries, rows, columns), np.float32)
    looks = np.zeros((rows, columns), np.int32)
    for number in range(count):
        left, top, right, bottom = seen.boxes[number]
        x, y = _placed(across, left, right, columns), _placed(down, top, bottom, rows)
        inside = np.ix_((y >= 0) & (y < rows), (x >= 0) & (x < columns))
        place = np.ix_(y[(y >= 0) & (y < rows)], x[(x >= 0) & (x < columns)])
        for query in range(queries):
            values = tiles.maps[number, query].repeat(repeat, axis=0).repeat(repeat, axis=1)[inside]
            np.add.at(total[query], place, values / repeat**2 if tiles.are_shares else values)
        np.add.at(looks, place, 1)
    if not tiles.are_shares:
        total /= np.maximum(looks, 1)
    total[:, looks == 0] = np.nan
    return total


def _whole(embeddings: FloatArray) -> tuple[FloatArray, float]:
    """Return the embedding (E,) of a picture from those of its squares (T, E), and the length of their mean."""
    if len(embeddings) == 1:
        return embeddings[0], 1.0
    mean = embeddings.mean(axis=0)
    length = max(float(np.linalg.norm(mean)), _TINY)
    return mean / length, length


def _in_squares(values: FloatArray) -> FloatArray:  # (T, N, Q) -> (T, Q, side, side)
    side = math.isqrt(values.shape[1])
    return values.transpose(0, 2, 1).reshape(len(values), values.shape[2], side, side)


def _span(edges: list[int], index: int) -> slice:
    """Return the pixels of the hidden square that is centered on an edge, as far as it is in the picture."""
    return slice(edges[max(index - 1, 0)], edges[min(index + 1, _STEPS)])


def _placed(cells: IntArray, start: float, end: float, count: int) -> IntArray:
    """Move a square's cells along a side of `count` cells to where it starts; what is inside the picture stays so."""
    first = round(start * count)
    if start >= 0 and end <= 1 + 1e-9:
        first = max(0, min(first, count - 1 - int(cells[-1])))
    return first + cells


def _cells(cells: int, part: float) -> tuple[int, IntArray]:
    """Return how many cells a side of the picture has, and at which of them those of a square are that starts at 0.

    Args:
        cells: Of the square.
        part: Of the side that the square takes.
    """
    count = max(1, round(cells / part))
    if count <= _MOST_CELLS:
        return count, np.arange(cells, dtype=np.int64)
    return _MOST_CELLS, (np.arange(cells) * (_MOST_CELLS * part / cells)).astype(np.int64)

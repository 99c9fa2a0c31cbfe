"""Measure text to image and image to text retrieval from embeddings, without ever holding a matrix of all against all.

Each query is ranked against the whole gallery. A rival with the same score ranks before the right item, so a model that
gives everything the same embedding scores no better than chance. Of the several captions of a photograph, the best one
counts.

CLIP-Italian's notebook (CLIP_Image_Retrieval_and_MRR.ipynb of clip-italian/clip-italian) differs in two ways, which
`notebook_ranks` reproduces: texts are divided by the norm of their whole batch of 1,024, and equal scores are in the
order in which argsort leaves them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clipita.system.arrays import Array
from clipita_train.evaluate.metrics import found_at, reciprocal_at, relevant_pairs
from clipita_train.intervals import Difference, Estimate, differences, estimates

CUTOFFS = (1, 5, 10)
METRICS = (*(f"MRR@{k}" for k in CUTOFFS), *(f"Recall@{k}" for k in CUTOFFS))
DIRECTIONS = ("text -> image", "image -> text")
NOTEBOOK_BATCH = 1024

QUERIES, GALLERY = 1024, 4096  # sides of a block of scores, 16 MiB of float32

# The products of equal rows may differ in their last bits, by their places in a block. A cosine that is closer than
# this to that of the right item ties with it, and counts against the model.
TIE = 1e-6


@dataclass(frozen=True)
class Ranked:
    """The ranks of the queries of one direction.

    Attributes:
        ranks: (Q,) integers from 1.
        photographs: (Q,) integers, the photograph that each query belongs to.
    """

    ranks: Array
    photographs: Array

    def values(self) -> Array:
        """Return the `METRICS` (Q, M) of each query."""
        columns = [reciprocal_at(self.ranks, k) for k in CUTOFFS] + [found_at(self.ranks, k) for k in CUTOFFS]
        return np.stack(columns, axis=1)

    def scores(self) -> dict[str, Estimate]:
        """Return each metric with its interval."""
        return dict(zip(METRICS, estimates(self.values(), self.photographs), strict=True))

    def against(self, other: "Ranked") -> dict[str, Difference]:
        """Return how much more this model scores than another on the same queries.

        Raises:
            ValueError: The queries are not the same.
        """
        if not np.array_equal(self.photographs, other.photographs):
            raise ValueError("two models must be compared on the same queries in the same order")
        return dict(zip(METRICS, differences(other.values(), self.values(), self.photographs), strict=True))


def retrieve(texts: Array, images: Array, shown: Array, *, notebook: bool = False) -> dict[str, Ranked]:
    """Rank the queries of both directions.

    Args:
        texts: (T, E) float of unit norm; with `notebook` of any norm.
        images: (N, E) float of unit norm.
        shown: (T,) integers, the image that each text is about. Every image has a text.
        notebook: Rank as CLIP-Italian's notebook did.

    Raises:
        ValueError: The shapes do not fit, an image has no text, or embeddings are not of unit norm.
    """
    if texts.ndim != 2 or images.ndim != 2 or texts.shape[1] != images.shape[1] or shown.shape != texts.shape[:1]:
        raise ValueError(
            f"expected texts (T, E), images (N, E) and shown (T,), not {texts.shape}, {images.shape} and {shown.shape}"
        )
    rows, columns = relevant_pairs(shown, len(images))
    order = np.argsort(columns, kind="stable")
    if len(without := np.setdiff1d(np.arange(len(images)), columns)):
        raise ValueError(f"images[{without[0]}] has no text")
    if notebook:
        texts = batch_normalized(texts)
    find = notebook_ranks if notebook else best_ranks
    return {
        "text -> image": Ranked(find(texts, images, (rows, columns)), shown),
        "image -> text": Ranked(find(images, texts, (columns[order], rows[order])), np.arange(len(images))),
    }


def best_ranks(
    queries: Array, gallery: Array, relevant: tuple[Array, Array], *, block: tuple[int, int] = (QUERIES, GALLERY)
) -> Array:
    """Return the rank of each query's best relevant item, from 1; ties count against it.

    Args:
        queries: (Q, E) float of unit norm; may be memory-mapped.
        gallery: (G, E) likewise.
        relevant: Rows (P,), ascending and each at least once, and columns (P,), as `metrics.relevant_pairs` returns
            them.
        block: How many scores are held at a time, queries by gallery.

    Returns:
        (Q,) integers.

    Raises:
        ValueError: Embeddings are not of unit norm.
    """
    ranks = np.ones(len(queries), np.int64)
    for start in range(0, len(queries), block[0]):
        mine = _unit(queries[start : start + block[0]], f"queries from {start}")
        pairs = slice(*np.searchsorted(relevant[0], [start, start + len(mine)]))
        rows, columns = relevant[0][pairs] - start, relevant[1][pairs]
        reached = _best_of_pairs(mine, gallery, rows, columns, block[1]) - TIE
        for left in range(0, len(gallery), block[1]):
            scores = mine @ _unit(gallery[left : left + block[1]], f"gallery from {left}").T  # (block, block)
            inside = (columns >= left) & (columns < left + scores.shape[1])
            scores[rows[inside], columns[inside] - left] = -np.inf
            ranks[start : start + len(mine)] += (scores >= reached[:, None]).sum(1)
    return ranks


def _best_of_pairs(queries: Array, gallery: Array, rows: Array, columns: Array, block: int) -> Array:
    """Return the best cosine (Q,) among the relevant pairs, computed in blocks of pairs."""
    best = np.full(len(queries), -np.inf, queries.dtype)
    for start in range(0, len(rows), block):
        mine, theirs = rows[start : start + block], columns[start : start + block]
        np.maximum.at(best, mine, np.einsum("pe,pe->p", queries[mine], gallery[theirs]))
    return best


def _unit(rows: Array, name: str) -> Array:
    norms = np.linalg.norm(rows, axis=1)
    if not (np.abs(norms - 1) < 1e-3).all():  # NaN fails too
        worst = int(np.nan_to_num(np.abs(norms - 1), nan=np.inf).argmax())
        raise ValueError(f"embeddings must be of unit norm, and number {worst} of the {name} has {norms[worst]:g}")
    return rows


def batch_normalized(texts: Array, batch: int = NOTEBOOK_BATCH) -> Array:
    """Divide texts (T, E) by the norm of their whole batch, as CLIP-Italian's notebook did.

    It scales all scores of a query alike, so text to image retrieval is not changed. From image to text, it leaves the
    lengths of the texts in the scores, and makes scores of a shorter last batch larger.
    """
    return np.concatenate([
        texts[start : start + batch] / np.linalg.norm(texts[start : start + batch])
        for start in range(0, len(texts), batch)
    ])  # fmt: skip


def notebook_ranks(
    queries: Array, gallery: Array, relevant: tuple[Array, Array], *, block: tuple[int, int] = (QUERIES, GALLERY)
) -> Array:
    """Rank as `best_ranks`, but with ties in the reverse order of NumPy's argsort, and 11 for all ranks beyond 10.

    Memory is bounded here too, since only the best ten of each block of the gallery are kept.
    """
    places = np.full(len(queries), max(CUTOFFS) + 1)
    for start in range(0, len(queries), block[0]):
        mine = queries[start : start + block[0]]
        pairs = slice(*np.searchsorted(relevant[0], [start, start + len(mine)]))
        wanted: list[set[int]] = [set() for _ in mine]
        for row, column in zip(relevant[0][pairs] - start, relevant[1][pairs], strict=True):
            wanted[row].add(int(column))
        for i, best in enumerate(_notebook_best(mine, gallery, block[1])):
            hits = [place for place, column in enumerate(best.tolist(), 1) if column in wanted[i]]
            if hits:
                places[start + i] = hits[0]
    return places


def _notebook_best(queries: Array, gallery: Array, block: int) -> Array:
    """Return the best ten columns (Q, 10), best first, as distances.argsort()[-10:][::-1] does, block by block."""
    best: Sequence[Array] = []
    scores: Sequence[Array] = []
    for left in range(0, len(gallery), block):
        found = queries @ gallery[left : left + block].T
        order = found.argsort(1)[:, -max(CUTOFFS) :]
        best = [*best, order + left]
        scores = [*scores, np.take_along_axis(found, order, 1)]
    columns, values = np.concatenate(best, 1), np.concatenate(scores, 1)
    return np.take_along_axis(columns, values.argsort(1)[:, -max(CUTOFFS) :][:, ::-1], 1)

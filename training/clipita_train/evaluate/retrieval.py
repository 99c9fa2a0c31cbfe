"""Text to image and image to text retrieval from embeddings, in blocks: no matrix of all against all is ever held.

Each query is ranked against the whole gallery. A rival with the same score stands before the right item, so a model
that gives everything one embedding scores no better than chance. From a photograph to its several captions, the
best-placed one counts.

The original CLIP-Italian notebook (CLIP_Image_Retrieval_and_MRR.ipynb of clip-italian/clip-italian) differs in two
ways, which `notebook_ranks` reproduces: texts are divided by the norm of their whole batch of 1,024, and equal scores
are in whatever order argsort leaves them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clipita_train.arrays import Array
from clipita_train.evaluate.metrics import found_at, reciprocal_at, relevant_pairs
from clipita_train.intervals import Difference, Estimate, differences, estimates

CUTOFFS = (1, 5, 10)
METRICS = (*(f"MRR@{k}" for k in CUTOFFS), *(f"Recall@{k}" for k in CUTOFFS))
DIRECTIONS = ("text -> image", "image -> text")
NOTEBOOK_BATCH = 1024

QUERIES, GALLERY = 1024, 4096  # a block of scores: 16 MiB of float32

# Two products of equal rows may differ in their last bits with where in a block they stand. What is closer than this to
# the right item's cosine ties with it, and a tie does not help.
TIE = 1e-6


@dataclass(frozen=True)
class Ranked:
    """The ranks (Q,) of one direction's queries, and the photograph (Q,) that each belongs to."""

    ranks: Array
    photographs: Array

    def values(self) -> Array:
        """(Q, M) of the `METRICS`."""
        columns = [reciprocal_at(self.ranks, k) for k in CUTOFFS] + [found_at(self.ranks, k) for k in CUTOFFS]
        return np.stack(columns, axis=1)

    def scores(self) -> dict[str, Estimate]:
        """Each metric with its interval."""
        return dict(zip(METRICS, estimates(self.values(), self.photographs), strict=True))

    def against(self, other: "Ranked") -> dict[str, Difference]:
        """How much more this model scores than another on the same queries.

        Raises:
            ValueError: the queries are not the same.
        """
        if not np.array_equal(self.photographs, other.photographs):
            raise ValueError("two models must be compared on the same queries in the same order")
        return dict(zip(METRICS, differences(other.values(), self.values(), self.photographs), strict=True))


def retrieve(texts: Array, images: Array, shown: Array, *, notebook: bool = False) -> dict[str, Ranked]:
    """Both directions.

    Args:
        texts: (T, E) float of unit norm; with `notebook` of any norm.
        images: (N, E) float of unit norm.
        shown: (T,) integers: which image each text is about. Every image has a text.
        notebook: Rank as the original notebook.

    Raises:
        ValueError: shapes that do not fit, an image without text, or embeddings that are not of unit norm.
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
        texts = batch_normalised(texts)
    find = notebook_ranks if notebook else best_ranks
    return {
        "text -> image": Ranked(find(texts, images, (rows, columns)), shown),
        "image -> text": Ranked(find(images, texts, (columns[order], rows[order])), np.arange(len(images))),
    }


def best_ranks(
    queries: Array, gallery: Array, relevant: tuple[Array, Array], *, block: tuple[int, int] = (QUERIES, GALLERY)
) -> Array:
    """The place of each query's best relevant item, from 1, ties against it.

    Args:
        queries: (Q, E) float of unit norm; may be memory-mapped.
        gallery: (G, E) likewise.
        relevant: rows (P,), ascending and each at least once, and columns (P,), as `metrics.relevant_pairs` gives them.
        block: Scores held at a time, queries by gallery.

    Returns:
        (Q,) integers.

    Raises:
        ValueError: embeddings that are not of unit norm.
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
    """(Q,) the best cosine among the relevant pairs, a block of pairs at a time."""
    best = np.full(len(queries), -np.inf, queries.dtype)
    for start in range(0, len(rows), block):
        mine, theirs = rows[start : start + block], columns[start : start + block]
        np.maximum.at(best, mine, np.einsum("pe,pe->p", queries[mine], gallery[theirs]))
    return best


def _unit(rows: Array, name: str) -> Array:
    norms = np.linalg.norm(rows, axis=1)
    if not (np.abs(norms - 1) < 1e-3).all():  # NaN too
        worst = int(np.nan_to_num(np.abs(norms - 1), nan=np.inf).argmax())
        raise ValueError(f"embeddings must be of unit norm, and number {worst} of the {name} has {norms[worst]:g}")
    return rows


def batch_normalised(texts: Array, batch: int = NOTEBOOK_BATCH) -> Array:
    """Texts (T, E), each divided by the norm of its whole batch, as the original notebook did.

    It scales all scores of a query alike, so text to image retrieval stays as it is. From image to text it leaves the
    lengths of the texts in the scores, and makes those of a last, shorter batch larger.
    """
    return np.concatenate([
        texts[start : start + batch] / np.linalg.norm(texts[start : start + batch])
        for start in range(0, len(texts), batch)
    ])  # fmt: skip


def notebook_ranks(
    queries: Array, gallery: Array, relevant: tuple[Array, Array], *, block: tuple[int, int] = (QUERIES, GALLERY)
) -> Array:
    """As `best_ranks`, with ties in the order of NumPy's argsort, the last first, and all places beyond 10 being 11.

    Its memory is bounded too: of each block of the gallery the best ten are kept.
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
    """(Q, 10) columns, best first: distances.argsort()[-10:][::-1], of one block and then of the best of the blocks."""
    best: Sequence[Array] = []
    scores: Sequence[Array] = []
    for left in range(0, len(gallery), block):
        found = queries @ gallery[left : left + block].T
        order = found.argsort(1)[:, -max(CUTOFFS) :]
        best = [*best, order + left]
        scores = [*scores, np.take_along_axis(found, order, 1)]
    columns, values = np.concatenate(best, 1), np.concatenate(scores, 1)
    return np.take_along_axis(columns, values.argsort(1)[:, -max(CUTOFFS) :][:, ::-1], 1)

"""Metrics of classification and retrieval, as fractions. Ties do not help."""

from collections.abc import Iterable, Sequence

import numpy as np

from clipita_train.arrays import Array

Relevant = Array | Sequence[Iterable[int]]


def accuracy_at_k(scores: Array, labels: Array, k: int) -> float:
    """Share of rows whose right label is among the k best.

    Args:
        scores: (Q, K) float, higher is better. A label that ties with the right one counts as better than it, so a
            constant model scores 0 and not 1.
        labels: (Q,) integers, the right columns.
        k: >= 1.

    Raises:
        ValueError: shapes that do not fit, scores that are not numbers, no rows, or k < 1.
    """
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or not len(labels):
        raise ValueError(f"expected scores (Q, K) and labels (Q,) with Q >= 1, not {scores.shape} and {labels.shape}")
    return recall_at_k(scores, labels, k)


def recall_at_k(scores: Array, relevant: Relevant, k: int) -> float:
    """Share of queries with something relevant among their k best ("hit rate": one is enough).

    Args: as for `ranks`, and k >= 1.

    Raises:
        ValueError: as `ranks`, or k < 1.
    """
    return float(found_at(ranks(scores, relevant), k).mean())


def mrr_at_k(scores: Array, relevant: Relevant, k: int) -> float:
    """Mean reciprocal rank of the best relevant item, counted as 0 where it is not among the k best.

    Args: as for `ranks`, and k >= 1.

    Raises:
        ValueError: as `ranks`, or k < 1.
    """
    return float(reciprocal_at(ranks(scores, relevant), k).mean())


def ranks(scores: Array, relevant: Relevant) -> Array:
    """The place of each query's best relevant item, from 1.

    Args:
        scores: (Q, G) float, higher is better. An irrelevant item with the same score stands before the relevant one,
            so constant scores never beat chance; relevant items do not stand in each other's way.
        relevant: (Q,) integers, the one relevant column of each row; or for each row a set of columns, not empty.

    Returns:
        (Q,) integers.

    Raises:
        ValueError: shapes that do not fit, scores that are not numbers, no queries, a query without relevant items, or
            a column that does not exist.
    """
    if scores.ndim != 2 or not len(scores) or len(relevant) != len(scores):
        got = relevant.shape if isinstance(relevant, np.ndarray) else f"{len(relevant)} sets"
        raise ValueError(
            f"expected scores (Q, G) and relevant (Q,) or Q sets of columns with Q >= 1, not {scores.shape} and {got}"
        )
    if np.isnan(scores).any():
        raise ValueError("scores hold NaN")
    rows, columns = relevant_pairs(relevant, scores.shape[1])
    is_relevant = np.zeros(scores.shape, bool)
    is_relevant[rows, columns] = True
    best = np.where(is_relevant, scores, -np.inf).max(1, keepdims=True)
    return ((scores >= best) & ~is_relevant).sum(1) + 1


def relevant_pairs(relevant: Relevant, gallery: int) -> tuple[Array, Array]:
    """Relevance as two arrays (P,) of rows, ascending, and columns. Raises ValueError as `ranks`."""
    if isinstance(relevant, np.ndarray):
        if relevant.ndim != 1 or relevant.dtype.kind not in "iu":
            raise ValueError(
                f"relevant must be (Q,) integers or Q sets of them, not {relevant.shape} of {relevant.dtype}"
            )
        rows, columns = np.arange(len(relevant)), relevant
    else:
        sets = [sorted(set(items)) for items in relevant]
        if not all(sets):
            raise ValueError(f"query {[bool(items) for items in sets].index(False)} has no relevant item")
        rows = np.repeat(np.arange(len(sets)), [len(items) for items in sets])
        columns = np.array([column for items in sets for column in items], dtype=np.int64)
    outside = (columns < 0) | (columns >= gallery)
    if outside.any():
        at = int(outside.argmax())
        raise ValueError(f"relevant[{rows[at]}] is {columns[at]}, and there are {gallery} columns, from 0")
    return rows, columns


def found_at(ranks: Array, k: int) -> Array:
    """(Q,) float: 1 where the rank is k or better, else 0. Raises ValueError: k < 1."""
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    return (ranks <= k).astype(np.float64)


def reciprocal_at(ranks: Array, k: int) -> Array:
    """(Q,) float: 1 / rank where it is k or better, else 0. Raises ValueError: k < 1."""
    return found_at(ranks, k) / ranks


def expected_calibration_error(probabilities: Array, labels: Array, bins: int = 15) -> float:
    """How far a model's confidence is from how often it is right: 0 at best, 1 at worst.

    A row's confidence is its highest probability. Rows fall into bins of equal width by it, (0, 1/bins] and so on, and
    each bin counts |share of its rows that are right - their mean confidence| by its share of all rows.

    Args:
        probabilities: (Q, K) float, 0 to 1: of a softmax, or of each label by itself; rows need not sum to 1.
        labels: (Q,) integers, the right columns. As for `accuracy_at_k`, a tie with the right one is an error.
        bins: >= 1.

    Raises:
        ValueError: as `accuracy_at_k`, probabilities outside 0 to 1, or bins < 1.

    Source: arXiv:1706.04599, section 2, whose tables have 15 bins.
    """
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise ValueError(
            f"expected probabilities (Q, K) and labels (Q,) with Q >= 1, not {probabilities.shape} and {labels.shape}"
        )
    right = found_at(ranks(probabilities, labels), 1)
    return calibration_error(probabilities.max(1), right, bins)


def calibration_error(confidence: Array, right: Array, bins: int = 15) -> float:
    """`expected_calibration_error` of (Q,) confidences and (Q,) 0 or 1, where all probabilities are too many to hold.

    Raises:
        ValueError: shapes that do not fit, no rows, confidences outside 0 to 1, or bins < 1.
    """
    if confidence.ndim != 1 or right.shape != confidence.shape or not len(right):
        raise ValueError(f"expected confidence (Q,) and right (Q,), Q >= 1, not {confidence.shape} and {right.shape}")
    if not ((confidence >= 0) & (confidence <= 1)).all():  # NaN too
        raise ValueError(f"probabilities go from 0 to 1, not from {confidence.min()} to {confidence.max()}")
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}")
    edges = np.arange(1, bins) / bins  # those between two bins; linspace rounds some of them otherwise
    surplus = np.bincount(np.digitize(confidence, edges, right=True), right - confidence)
    return float(np.abs(surplus).sum() / len(confidence))


def area_under_curve(higher: Array, lower: Array) -> float:
    """The chance that one of `higher` (N,) stands above one of `lower` (M,), a tie counting half: the area under the
    ROC curve.

    Raises:
        ValueError: one of them is empty, or holds NaN.
    """
    if not len(higher) or not len(lower) or np.isnan(higher).any() or np.isnan(lower).any():
        raise ValueError(f"expected scores on both sides and no NaN, not {higher.shape} and {lower.shape}")
    ordered = np.sort(lower)
    below, not_above = (np.searchsorted(ordered, higher, side) for side in ("left", "right"))
    return float((below + not_above).mean() / 2 / len(lower))

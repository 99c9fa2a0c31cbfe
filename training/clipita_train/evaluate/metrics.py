"""Metrics of classification and retrieval, as fractions. Ties count against the model."""

from collections.abc import Iterable, Sequence

import numpy as np

from clipita.system.arrays import Array

Relevant = Array | Sequence[Iterable[int]]


def accuracy_at_k(scores: Array, labels: Array, k: int) -> float:
    """Return the share of rows whose right label is among the k best.

    Args:
        scores: (Q, K) float, higher is better. A label that ties with the right one counts as better, so that a
            constant model scores 0 and not 1.
        labels: (Q,) integers, the right columns.
        k: At least 1.

    Raises:
        ValueError: The shapes do not fit, scores hold NaN, there are no rows, or k < 1.
    """
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or not len(labels):
        raise ValueError(f"expected scores (Q, K) and labels (Q,) with Q >= 1, not {scores.shape} and {labels.shape}")
    return recall_at_k(scores, labels, k)


def recall_at_k(scores: Array, relevant: Relevant, k: int) -> float:
    """Return the share of queries with at least one relevant item among their k best ("hit rate").

    Args:
        scores: As for `ranks`.
        relevant: As for `ranks`.
        k: At least 1.

    Raises:
        ValueError: As for `ranks`, or k < 1.
    """
    return float(found_at(ranks(scores, relevant), k).mean())


def mrr_at_k(scores: Array, relevant: Relevant, k: int) -> float:
    """Return the mean reciprocal rank of the best relevant item, which counts as 0 beyond rank k.

    Args:
        scores: As for `ranks`.
        relevant: As for `ranks`.
        k: At least 1.

    Raises:
        ValueError: As for `ranks`, or k < 1.
    """
    return float(reciprocal_at(ranks(scores, relevant), k).mean())


def ranks(scores: Array, relevant: Relevant) -> Array:
    """Return the rank of each query's best relevant item, from 1.

    Args:
        scores: (Q, G) float, higher is better. An irrelevant item with the same score ranks before the relevant one, so
            that constant scores never beat chance. Relevant items do not push each other back.
        relevant: (Q,) integers, the one relevant column of each row; or for each row a set of columns, not empty.

    Returns:
        (Q,) integers.

    Raises:
        ValueError: The shapes do not fit, scores hold NaN, there are no queries, a query has no relevant item, or a
            column does not exist.
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
    """Return the relevant pairs as arrays (P,) of rows, ascending, and columns.

    Args:
        relevant: As for `ranks`.
        gallery: Number of columns.

    Raises:
        ValueError: As for `ranks`.
    """
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
    """Return (Q,) float, 1 where the rank is k or better, else 0.

    Raises:
        ValueError: k < 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    return (ranks <= k).astype(np.float64)


def reciprocal_at(ranks: Array, k: int) -> Array:
    """Return (Q,) float, 1 / rank where the rank is k or better, else 0.

    Raises:
        ValueError: k < 1.
    """
    return found_at(ranks, k) / ranks


def ordered_relevance(scores: Array, relevant: Array, ignored: Array) -> list[Array]:
    """Return for each query whether the items are relevant, best first, without those that are ignored.

    Args:
        scores: (Q, G) float, higher is better. Of equal scores, relevant items come last.
        relevant: (Q, G) bool.
        ignored: (Q, G) bool, items that count neither for nor against.

    Returns:
        Q arrays of bool, each as long as there are items that are not ignored.

    Raises:
        ValueError: The shapes differ, or scores hold NaN.
    """
    if scores.shape != relevant.shape or scores.shape != ignored.shape or scores.ndim != 2:
        raise ValueError(f"expected three arrays (Q, G), not {scores.shape}, {relevant.shape} and {ignored.shape}")
    if np.isnan(scores).any():
        raise ValueError("scores hold NaN")
    kept = [(row[~skip], right[~skip]) for row, right, skip in zip(scores, relevant, ignored, strict=True)]
    return [right[np.lexsort((right, -row))] for row, right in kept]


def expected_calibration_error(probabilities: Array, labels: Array, bins: int = 15) -> float:
    """Return how far a model's confidence is from how often it is right: 0 at best, 1 at worst.

    The confidence of a row is its highest probability. Rows are sorted by it into bins of equal width, (0, 1/bins] and
    so on. Each bin adds |share of its rows that are right - their mean confidence|, times its share of all rows.

    Args:
        probabilities: (Q, K) float from 0 to 1, of a softmax, or of each label by itself; rows need not sum to 1.
        labels: (Q,) integers, the right columns. A tie with the right label is an error, as for `accuracy_at_k`.
        bins: At least 1.

    Raises:
        ValueError: As for `accuracy_at_k`, probabilities are outside 0 to 1, or bins < 1.

    Source: arXiv:1706.04599, section 2, whose tables have 15 bins.
    """
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise ValueError(
            f"expected probabilities (Q, K) and labels (Q,) with Q >= 1, not {probabilities.shape} and {labels.shape}"
        )
    right = found_at(ranks(probabilities, labels), 1)
    return calibration_error(probabilities.max(1), right, bins)


def calibration_error(confidence: Array, right: Array, bins: int = 15) -> float:
    """Compute `expected_calibration_error` where the probabilities of all labels would need too much memory.

    Args:
        confidence: (Q,) float from 0 to 1, the highest probability of each row.
        right: (Q,) 1 where the label with that probability is right, else 0.
        bins: At least 1.

    Raises:
        ValueError: The shapes do not fit, there are no rows, confidences are outside 0 to 1, or bins < 1.
    """
    if confidence.ndim != 1 or right.shape != confidence.shape or not len(right):
        raise ValueError(f"expected confidence (Q,) and right (Q,), Q >= 1, not {confidence.shape} and {right.shape}")
    if not ((confidence >= 0) & (confidence <= 1)).all():  # NaN fails too
        raise ValueError(f"probabilities go from 0 to 1, not from {confidence.min()} to {confidence.max()}")
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}")
    edges = np.arange(1, bins) / bins  # between two bins; linspace would round some of them differently
    surplus = np.bincount(np.digitize(confidence, edges, right=True), right - confidence)
    return float(np.abs(surplus).sum() / len(confidence))


def area_under_curve(higher: Array, lower: Array) -> float:
    """Return the area under the ROC curve.

    It is the probability that one of `higher` (N,) is above one of `lower` (M,), where a tie counts half.

    Raises:
        ValueError: One of them is empty, or holds NaN.
    """
    if not len(higher) or not len(lower) or np.isnan(higher).any() or np.isnan(lower).any():
        raise ValueError(f"expected scores on both sides and no NaN, not {higher.shape} and {lower.shape}")
    ordered = np.sort(lower)
    below, not_above = (np.searchsorted(ordered, higher, side) for side in ("left", "right"))
    return float((below + not_above).mean() / 2 / len(lower))

"""Metrics of classification, as fractions. Ties do not help."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


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
    if np.isnan(scores).any():
        raise ValueError("scores hold NaN")
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    right = np.take_along_axis(scores, labels[:, None], 1)
    better = (scores >= right).sum(1) - 1  # not counting itself
    return float((better < k).mean())

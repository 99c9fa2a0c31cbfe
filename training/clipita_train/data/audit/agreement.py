"""Compute the mean mark of an audit, and how far its raters agree.

Gwet's AC1 is agreement corrected for chance. With weights other than 0 and 1 for pairs of marks it is called AC2.
CLIP-Italian had 100 translated captions rated by three people on a scale from 1 to 4: the mean was 3.78, and the
agreement with ordinal weights 0.858.

Source: K. L. Gwet, Handbook of Inter-Rater Reliability, 4th edition, chapters 3 and 5, including its treatment of
missing marks. The results equal those of the package irrCAC.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipita.system.arrays import Array
from clipita_train.intervals import LEVEL, Estimate, estimates

WEIGHTS = ("ordinal", "identity")


@dataclass(frozen=True)
class Audit:
    """The mean mark and the agreement of raters, with 95 % intervals.

    Attributes:
        mean: Its interval is a bootstrap interval over the items.
        agreement: Gwet's coefficient; its interval is by Student's t over the items.
    """

    mean: Estimate
    agreement: Estimate


def audit(marks: Array, categories: Sequence[float], *, weights: str = "ordinal") -> Audit:
    """Return the mean mark, and Gwet's coefficient of agreement.

    Args:
        marks: (N, R) float, of N items by R raters; NaN where a rater gave no mark.
        categories: All marks of the scale in their order. Marks that nobody gave count too, for agreement by chance.
        weights: "ordinal" (AC2) or "identity" (AC1).

    Raises:
        ValueError: A mark is not on the scale, an item has no mark, there are fewer than two items, or no item has two
            marks.
    """
    counts = _counts(marks, categories)  # (N, Q)
    items, _ = np.nonzero(~np.isnan(marks))
    (mean,) = estimates(marks[~np.isnan(marks)][:, None], items)
    return Audit(mean, _gwet(counts, category_weights(len(categories), weights)))


def category_weights(count: int, kind: str) -> Array:
    """Return the weights (Q, Q) of pairs of marks: 1 for equal marks, down to 0.

    Ordinal weights are 1 - M / max M, where M counts the pairs of marks on the way from one mark to the other.

    Raises:
        ValueError: The kind is unknown, or there are fewer than two categories.
    """
    if kind not in WEIGHTS or count < 2:
        raise ValueError(f"expected weights {' or '.join(WEIGHTS)} of two categories or more, not {kind!r} of {count}")
    if kind == "identity":
        return np.eye(count)
    apart = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    pairs = apart * (apart + 1) / 2
    return 1 - pairs / pairs.max()


def _counts(marks: Array, categories: Sequence[float]) -> Array:
    if marks.ndim != 2 or len(marks) < 2:
        raise ValueError(f"expected marks (N, R) of two items or more, not {marks.shape}")
    unknown = marks[~np.isnan(marks) & ~np.isin(marks, categories)]
    if unknown.size:
        raise ValueError(f"a mark of {unknown[0]} is not on the scale {', '.join(map(str, categories))}")
    counts = np.stack([(marks == category).sum(1) for category in categories], axis=1).astype(np.float64)
    given = counts.sum(1)
    if not given.all() or not (given >= 2).any():
        raise ValueError("every item needs a mark, and at least one item needs two")
    return counts


def _gwet(counts: Array, weights: Array) -> Estimate:
    from scipy import stats

    size, kinds = counts.shape
    given = counts.sum(1)
    several = given >= 2
    agreed = np.zeros(size)
    pairs = (counts * (counts @ weights - 1)).sum(1)
    agreed[several] = pairs[several] / (given * (given - 1))[several]
    shares = (counts / given[:, None]).mean(0)  # (Q,)
    scale = weights.sum() / (kinds * (kinds - 1))
    chance = scale * (shares * (1 - shares)).sum()
    value = (agreed.sum() / several.sum() - chance) / (1 - chance)
    own_chance = scale * (counts @ (1 - shares)) / given
    own: Any = size / several.sum() * (agreed - chance * several) / (1 - chance)
    own = own - 2 * (1 - value) * (own_chance - chance) / (1 - chance)
    error = np.sqrt(((own - value) ** 2).sum() / (size * (size - 1)))
    half = stats.t.ppf((1 + LEVEL) / 2, size - 1) * error
    return Estimate(float(value), float(max(-1.0, value - half)), float(min(1.0, value + half)))

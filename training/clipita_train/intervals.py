"""Bootstrap intervals of means, and permutation tests between two models, both over groups of queries.

The captions of one photograph are not independent, and intervals over single captions would be too narrow. So a
photograph is drawn, or swapped between two models, together with all its queries. All randomness has a fixed seed.
"""

from dataclasses import dataclass

import numpy as np

from clipita.system.arrays import Array

DRAWS, SWAPS = 2_000, 9_999
SEED = 0
LEVEL = 0.95
_BLOCK = 1 << 22  # random signs in memory at a time


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """The mean difference between two models on the same queries.

    Attributes:
        value: How much more the second model scores.
        low: Lower end of its 95 % interval.
        high: Upper end.
        p: Two-sided p-value of there being no difference.
    """

    value: float
    low: float
    high: float
    p: float


def estimates(values: Array, groups: Array) -> list[Estimate]:
    """Return the mean of each column, with its bootstrap percentile interval.

    Args:
        values: (Q, M) float, M metrics of Q queries.
        groups: (Q,) integers from 0; queries of the same group are drawn together.

    Raises:
        ValueError: The shapes do not fit, or there are no queries.
    """
    sums, counts = _sums(values, groups)
    low, high = _interval(_bootstrap(sums, counts))
    means = values.mean(0)
    return [Estimate(*map(float, row)) for row in zip(means, low, high, strict=True)]


def differences(first: Array, second: Array, groups: Array) -> list[Difference]:
    """Return `second` minus `first` for each metric, paired by query.

    The interval is a bootstrap interval; p comes from swapping the two models within whole groups.

    Args:
        first: (Q, M) float, M metrics of Q queries.
        second: (Q, M) float, the same metrics of the same queries.
        groups: (Q,) integers from 0.

    Returns:
        M differences. p = (1 + number of swaps that differ at least as much) / (1 + number of swaps) is never 0.

    Raises:
        ValueError: The shapes do not fit, or there are no queries.
    """
    if first.shape != second.shape:
        raise ValueError(f"two models must be compared on the same queries, not {first.shape} and {second.shape}")
    values = second - first
    sums, counts = _sums(values, groups)
    low, high = _interval(_bootstrap(sums, counts))
    columns = zip(values.mean(0), low, high, _swapped(sums), strict=True)
    return [Difference(*map(float, column)) for column in columns]


def _sums(values: Array, groups: Array) -> tuple[Array, Array]:
    """Return the sums (N, M) and counts (N,) of the groups."""
    if values.ndim != 2 or groups.shape != values.shape[:1] or not len(values):
        raise ValueError(f"expected values (Q, M) and groups (Q,) with Q >= 1, not {values.shape} and {groups.shape}")
    _, places = np.unique(groups, return_inverse=True)
    counts = np.bincount(places)
    return np.stack([np.bincount(places, column) for column in values.T], axis=1), counts


def _bootstrap(sums: Array, counts: Array) -> Array:
    """Return means (DRAWS, M) over groups drawn with replacement; models on the same groups get the same draws."""
    rng = np.random.default_rng(SEED)
    size = len(counts)
    means = np.empty((DRAWS, sums.shape[1]))
    for mean in means:
        times = np.bincount(rng.integers(size, size=size), minlength=size).astype(np.float64)
        mean[:] = (times @ sums) / (times @ counts)
    return means


def _interval(means: Array) -> Array:
    return np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)


def _swapped(sums: Array) -> Array:
    """Return p (M,): how often a sum of differences is reached when the sign of each group is drawn at random."""
    rng = np.random.default_rng(SEED)
    reached = np.abs(sums.sum(0)) * (1 - 1e-12)  # a swap with the same sum may be rounded differently
    as_much = np.zeros(sums.shape[1])
    block = max(1, _BLOCK // len(sums))
    for start in range(0, SWAPS, block):
        signs = rng.integers(0, 2, (min(block, SWAPS - start), len(sums)), dtype=np.int8) * 2.0 - 1
        as_much += (np.abs(signs @ sums) >= reached).sum(0)
    return (1 + as_much) / (1 + SWAPS)

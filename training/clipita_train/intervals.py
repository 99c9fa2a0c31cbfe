"""How sure a mean is, and whether two models differ: bootstrap intervals and a permutation test, both over groups.

The captions of one photograph are not independent questions, so what is drawn, or swapped between two models, is a
photograph with all its queries; intervals over single captions would be too narrow. All randomness has a fixed seed.
"""

from dataclasses import dataclass

import numpy as np

from clipita_train.arrays import Array

DRAWS, SWAPS = 2_000, 9_999
SEED = 0
LEVEL = 0.95
_BLOCK = 1 << 22  # random signs held at a time


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """How much more a second model scores on the same queries, the 95 % interval, and p of no difference, two-sided."""

    value: float
    low: float
    high: float
    p: float


def estimates(values: Array, groups: Array) -> list[Estimate]:
    """Means of each column with percentile intervals.

    Args:
        values: (Q, M) float, M metrics of Q queries.
        groups: (Q,) integers from 0: queries with the same one are drawn together.

    Raises:
        ValueError: shapes that do not fit, or no queries.
    """
    sums, counts = _sums(values, groups)
    low, high = _interval(_bootstrap(sums, counts))
    means = values.mean(0)
    return [Estimate(*map(float, row)) for row in zip(means, low, high, strict=True)]


def differences(first: Array, second: Array, groups: Array) -> list[Difference]:
    """`second` minus `first`, paired by query: bootstrap interval, and p by swapping the models within groups.

    Args:
        first, second: (Q, M) float, the same metrics of the same queries.
        groups: (Q,) integers from 0.

    Returns:
        One for each of the M metrics. p = (1 + swaps that differ at least as much) / (1 + swaps) is never 0.

    Raises:
        ValueError: shapes that do not fit, or no queries.
    """
    if first.shape != second.shape:
        raise ValueError(f"two models must be compared on the same queries, not {first.shape} and {second.shape}")
    values = second - first
    sums, counts = _sums(values, groups)
    low, high = _interval(_bootstrap(sums, counts))
    columns = zip(values.mean(0), low, high, _swapped(sums), strict=True)
    return [Difference(*map(float, column)) for column in columns]


def _sums(values: Array, groups: Array) -> tuple[Array, Array]:
    """Sums (N, M) and counts (N,) of the groups."""
    if values.ndim != 2 or groups.shape != values.shape[:1] or not len(values):
        raise ValueError(f"expected values (Q, M) and groups (Q,) with Q >= 1, not {values.shape} and {groups.shape}")
    _, places = np.unique(groups, return_inverse=True)
    counts = np.bincount(places)
    return np.stack([np.bincount(places, column) for column in values.T], axis=1), counts


def _bootstrap(sums: Array, counts: Array) -> Array:
    """(DRAWS, M): means over groups drawn with replacement; the same draws for every model of the same groups."""
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
    """(M,): p of sums of differences, were each group's sign a coin's."""
    rng = np.random.default_rng(SEED)
    reached = np.abs(sums.sum(0)) * (1 - 1e-12)  # a swap that gives the same sum may round otherwise
    as_much = np.zeros(sums.shape[1])
    block = max(1, _BLOCK // len(sums))
    for start in range(0, SWAPS, block):
        signs = rng.integers(0, 2, (min(block, SWAPS - start), len(sums)), dtype=np.int8) * 2.0 - 1
        as_much += (np.abs(signs @ sums) >= reached).sum(0)
    return (1 + as_much) / (1 + SWAPS)

"""Group the members of a collection by pairs of them that are near: leaders, and members near a marked one."""

from collections.abc import Iterator

import numpy as np

from clipita_train.arrays import Array


def near_marked(pairs: Array, marked: Array) -> Array:
    """(N,) bool: which of N members are `marked` (N,) bool, or form one of the `pairs` (P, 2) with one that is."""
    near = marked.copy()
    near[pairs[marked[pairs[:, ::-1]]]] = True
    return near


def leaders(count: int, pairs: Array) -> Array:
    """(count,) int64: for each member the earliest one near it that has no earlier leader itself, or its own number.

    Members are gone through in their order, so that chains do not grow: everything is near its leader, and leaders are
    not near one another. `pairs` (P, 2) has i < j.
    """
    leader = np.arange(count)
    for i, j in pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]:  # for each j its earlier neighbours from the first on
        if leader[i] == i and leader[j] == j:
            leader[j] = i
    return leader


def equal_pairs(keys: Array) -> Iterator[Array]:
    """(P, 2) int64 once and again, in all every pair i < j of equal `keys` (N,)."""
    order = np.argsort(keys, kind="stable")
    ordered, left = keys[order], np.arange(len(keys))
    for apart in range(1, len(keys)):
        left = left[left < len(keys) - apart]
        left = left[ordered[left] == ordered[left + apart]]
        if not len(left):
            break
        yield np.stack([order[left], order[left + apart]], axis=1)


def unique_pairs(found: list[Array]) -> Array:
    return np.unique(np.concatenate([np.zeros((0, 2), np.int64), *found]), axis=0)

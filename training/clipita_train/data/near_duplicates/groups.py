"""Group the members of a collection by pairs of near members."""

from collections.abc import Iterator

import numpy as np

from clipita.system.arrays import Array


def near_marked(pairs: Array, marked: Array) -> Array:
    """Return (N,) bool: which members are `marked` (N,) bool, or in one of the `pairs` (P, 2) with a marked one."""
    near = marked.copy()
    near[pairs[marked[pairs[:, ::-1]]]] = True
    return near


def leaders(count: int, pairs: Array) -> Array:
    """Choose a leader for each member: itself, or the earliest near member that is its own leader.

    Members are taken in their order, so that groups do not grow into chains: every member is near its leader, and no
    two leaders are near one another.

    Args:
        count: How many members there are.
        pairs: (P, 2) integers, near members i < j.

    Returns:
        (count,) int64, the number of each member's leader.
    """
    leader = np.arange(count)
    for i, j in pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]:  # for each j, its near members i in their order
        if leader[i] == i and leader[j] == j:
            leader[j] = i
    return leader


def equal_pairs(keys: Array) -> Iterator[Array]:
    """Yield arrays (P, 2) int64, which together hold every pair i < j with equal `keys` (N,)."""
    order = np.argsort(keys, kind="stable")
    ordered, left = keys[order], np.arange(len(keys))
    for apart in range(1, len(keys)):
        left = left[left < len(keys) - apart]
        left = left[ordered[left] == ordered[left + apart]]
        if not len(left):
            break
        yield np.stack([order[left], order[left + apart]], axis=1)


def unique_pairs(found: list[Array]) -> Array:
    """Concatenate arrays of pairs (P, 2), and remove repeated pairs."""
    return np.unique(np.concatenate([np.zeros((0, 2), np.int64), *found]), axis=0)

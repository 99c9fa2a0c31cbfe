"""Cached tower features, grouped by concept so that training batches can be drawn from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipita.system.arrays import Array


@dataclass(frozen=True)
class ArrayRows:
    """A selection of rows of a large array, such as a memory-mapped one; rows are copied when they are indexed."""

    array: Array
    places: Array

    def __getitem__(self, index: Any) -> Array:
        return self.array[self.places[index]]

    def __len__(self) -> int:
        return len(self.places)


@dataclass(frozen=True)
class PhotographFeatures:
    """Features of photographs, each with the concept that it shows.

    Attributes:
        features: (N, D) float16, pooled features.
        concepts: (N,) integers, indices of concepts.
        boosts: (N,) float, how many times as often as others each is drawn; None: all equally often.
        maps: (N, H, W, C) float16, the input of the image tower's tail; None where the tail does not learn.
    """

    features: Array
    concepts: Array
    boosts: Array | None = None
    maps: ArrayRows | None = None

    def model_inputs(self, mapped: bool) -> Array | ArrayRows:
        """Return the maps if `mapped`, otherwise the pooled features.

        Raises:
            ValueError: maps are asked for, and there are none.
        """
        if not mapped:
            return self.features
        if self.maps is None:
            raise ValueError(
                "the tail of the image tower is to learn, but no maps were cached: assemble with tail_blocks above 0"
            )
        return self.maps


@dataclass(frozen=True)
class PhraseFeatures:
    """Pooled features (M, D) float16 of texts, and the index (M,) of the concept that each text names."""

    features: Array
    concepts: Array


class Groups:
    """Numbered groups of row numbers, from which one row of a group can be drawn."""

    def __init__(self, members: Sequence[Sequence[int]]) -> None:
        """Take the row numbers of each group; a group may be empty."""
        self.counts = np.array([len(group) for group in members])
        self.starts = np.cumsum(self.counts) - self.counts
        self.members = np.array([member for group in members for member in group], np.int64)

    @classmethod
    def by_value(cls, values: Array, count: int) -> "Groups":
        """Make `count` groups, of which group g holds the places where `values` (N,) is g."""
        groups = cls([])
        groups.members = np.argsort(values, kind="stable")
        groups.counts = np.bincount(values, minlength=count)
        groups.starts = np.cumsum(groups.counts) - groups.counts
        return groups

    def __len__(self) -> int:
        return len(self.counts)

    def first(self, groups: Array) -> Array:
        """Return the first member of each of these groups (B,), none of which may be empty."""
        return self.members[self.starts[groups]]

    def draw(self, rng: np.random.Generator, groups: Array) -> Array:
        """Draw a member of each of these groups (B,), none of which may be empty."""
        return self.members[self.starts[groups] + (rng.random(len(groups)) * self.counts[groups]).astype(np.int64)]


@dataclass(frozen=True)
class MatchedFeatures:
    """Features of two sides that belong together, such as photographs and captions.

    Attributes:
        left: (N, D) float16.
        right: (M, D) float16.
        left_groups: Rows of `left`; group g belongs with group g of the right side.
        right_groups: Rows of `right`.
        left_maps: As `PhotographFeatures.maps`, for the left side.
    """

    left: Array
    right: Array
    left_groups: Groups
    right_groups: Groups
    left_maps: ArrayRows | None = None

    def draw(self, rng: np.random.Generator, count: int, *, mapped: bool = False) -> tuple[Array, Array]:
        """Draw a left and a right row from each of `count` different groups.

        Returns:
            Two arrays of `count` rows, float32; with `mapped`, the left one holds maps, float16.
        """
        groups = rng.choice(len(self.left_groups), count, replace=False)
        left, right = self.left_groups.draw(rng, groups), self.right_groups.draw(rng, groups)
        if mapped and self.left_maps is not None:
            return self.left_maps[left], self.right[right].astype(np.float32)
        return self.left[left].astype(np.float32), self.right[right].astype(np.float32)


@dataclass(frozen=True)
class ConceptFeatures:
    """All cached features that training batches are drawn from.

    Attributes:
        photographs: Labeled photographs.
        classifier_rows: The weights of the image classifier, one row a class, in the place of photographs: each has the
            mean of the real features, and the direction of its row. They cover all 1,000 classes, also those of which
            there is no photograph here.
        spread: (D,) float32, the standard deviation of a feature within a concept: the noise added to classifier rows.
        phrases: Texts of the concepts.
        words: Pairs of words of one meaning, or None.
        captions: Photographs with captions, or None.
    """

    photographs: PhotographFeatures
    classifier_rows: PhotographFeatures
    spread: Array
    phrases: PhraseFeatures
    words: MatchedFeatures | None
    captions: MatchedFeatures | None

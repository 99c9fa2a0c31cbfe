"""Batches for the projections: concepts against photographs, words against words, captions against photographs.

Photographs are drawn concept by concept, not as the collections happen to have them, and each meets one phrasing of
many concepts at once: of its own concept and of broader kinds (right), of the others (wrong). A narrower kind of what
the photograph is known to show may be right or wrong, and takes no part.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipita_train.data.concepts import Ontology

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Photographs:
    """Pooled features (N, D) float16 of photographs, and the concept index (N,) of each.

    `boosts` (N,) says how many times as often as others each is to be drawn; None is once. `maps` are (N, H, W, C)
    float16, of which the tail of the image tower makes the features; None where it does not learn.
    """

    features: Array
    concepts: Array
    boosts: Array | None = None
    maps: "Rows | None" = None

    def seen(self, mapped: bool) -> "Array | Rows":
        """What the model is given of them."""
        if not mapped:
            return self.features
        if self.maps is None:
            raise ValueError(
                "the tail of the image tower is to learn, but no maps were cached: assemble with tail_blocks"
            )
        return self.maps


@dataclass(frozen=True)
class Rows:
    """Some rows of a large array, not copied out before they are asked for."""

    array: Array
    places: Array

    def __getitem__(self, index: Any) -> Array:
        return self.array[self.places[index]]

    def __len__(self) -> int:
        return len(self.places)


@dataclass(frozen=True)
class Phrases:
    """Pooled features (M, D) float16 of texts, and the concept index (M,) that each names."""

    features: Array
    concepts: Array


class Groups:
    """Members of G groups, from which one of each group is drawn."""

    def __init__(self, members: Sequence[Sequence[int]]) -> None:
        self.counts = np.array([len(group) for group in members])
        self.starts = np.cumsum(self.counts) - self.counts
        self.members = np.array([member for group in members for member in group], np.int64)

    @classmethod
    def by_value(cls, values: Array, count: int) -> "Groups":
        """Group g holds the places where `values` (N,) is g, of `count` groups; some may be empty."""
        groups = cls([])
        groups.members = np.argsort(values, kind="stable")
        groups.counts = np.bincount(values, minlength=count)
        groups.starts = np.cumsum(groups.counts) - groups.counts
        return groups

    def __len__(self) -> int:
        return len(self.counts)

    def first(self, groups: Array) -> Array:
        """The first member of each of these groups (B,), none of them empty."""
        return self.members[self.starts[groups]]

    def draw(self, rng: np.random.Generator, groups: Array) -> Array:
        """A member of each of these groups (B,), none of them empty."""
        return self.members[self.starts[groups] + (rng.random(len(groups)) * self.counts[groups]).astype(np.int64)]


@dataclass(frozen=True)
class Pairs:
    """Things that belong together: group g of `left` and group g of `right`, rows of features (N, D) float16."""

    left: Array
    right: Array
    left_groups: Groups
    right_groups: Groups
    left_maps: Rows | None = None  # as of `Photographs`

    def draw(self, rng: np.random.Generator, count: int, *, mapped: bool = False) -> tuple[Array, Array]:
        """Two rows, float32, of each of `count` different groups; with `mapped`, on the left the maps as they are."""
        groups = rng.choice(len(self.left_groups), count, replace=False)
        left, right = self.left_groups.draw(rng, groups), self.right_groups.draw(rng, groups)
        if mapped and self.left_maps is not None:
            return self.left_maps[left], self.right[right].astype(np.float32)
        return self.left[left].astype(np.float32), self.right[right].astype(np.float32)


@dataclass(frozen=True)
class Mix:
    """How a batch is put together."""

    photographs: int = 256
    texts: int = 768
    words: int = 256  # pairs of words of one meaning
    captions: int = 128  # photographs with a caption
    balance: float = 0.5  # a concept with n photographs is drawn n ** balance times as often as one with a single one
    own_weight: float = 0.5  # of the concept's own label; its broader kinds share the rest
    classifier_share: float = 0.15  # of the photographs, those that the classifier's rows stand for


class ConceptBatches:
    """Endless training batches; the state is the number of batches drawn, so that a resumed run draws the same.

    Args:
        ontology: which concept is a kind of which.
        photographs: labelled photographs.
        rows: the image classifier's own rows as photographs: features with the mean of the real ones and the direction
            of the row. They bring all its 1,000 concepts, also those without a photograph here.
        spread: (D,) standard deviation of a feature within a concept; rows are drawn with that much noise.
        phrases: texts of the concepts.
        words, captions: further pairs, or None.
        mix: sizes and shares.
        seed: of the draws.
        mapped: give maps of photographs, for a tail that learns.
    """

    def __init__(
        self,
        ontology: Ontology,
        photographs: Photographs,
        rows: Photographs,
        spread: Array,
        phrases: Phrases,
        words: Pairs | None,
        captions: Pairs | None,
        mix: Mix,
        seed: int,
        *,
        mapped: bool = False,
    ) -> None:
        self.ontology, self.photographs, self.rows, self.spread = ontology, photographs, rows, spread
        self.phrases, self.words, self.captions, self.mix, self.seed = phrases, words, captions, mix, seed
        self.mapped, self.drawn = mapped, 0
        self.images = photographs.seen(mapped)
        self.places = Groups.by_value(photographs.concepts, len(ontology))
        self.texts = Groups.by_value(phrases.concepts, len(ontology))
        self.shown = np.flatnonzero(self.places.counts)
        # Of a concept the mean boost counts; which of its photographs is drawn is left to chance.
        boosts = np.bincount(photographs.concepts, photographs.boosts, len(ontology))[self.shown]
        weights = self.places.counts[self.shown] ** (mix.balance - 1) * boosts
        self.weights = weights / weights.sum()
        seen = ontology.ancestors[np.concatenate([self.shown, rows.concepts])].any(0)
        self.nameable = np.flatnonzero(seen & (self.texts.counts > 0))

    def __iter__(self) -> "ConceptBatches":
        return self

    def __len__(self) -> int:
        """Batches in which as many photographs are drawn as there are."""
        return max(1, len(self.photographs.concepts) // self.mix.photographs)

    def get_state(self) -> int:
        """The number of batches drawn."""
        return self.drawn

    def set_state(self, state: int) -> None:
        """Goes to where `get_state` was."""
        self.drawn = state

    def __next__(self) -> dict[str, Array]:
        rng = np.random.default_rng((self.seed, self.drawn))
        self.drawn += 1
        images, imagined, shown = self._draw_photographs(rng)
        named = self._draw_concepts(rng, shown)
        positive, known = relations(self.ontology, shown, named, self.mix.own_weight)
        batch = {
            "images": images,
            "imagined": imagined,
            "text_features": self.phrases.features[self.texts.draw(rng, named)].astype(np.float32),
            "positive": positive,
            "known": known,
        }
        if self.words is not None:
            batch["word_left"], batch["word_right"] = self.words.draw(rng, self.mix.words)
        if self.captions is not None:
            batch["caption_left"], batch["caption_right"] = self.captions.draw(
                rng, self.mix.captions, mapped=self.mapped
            )
        return batch

    def _draw_photographs(self, rng: np.random.Generator) -> tuple[Array, Array, Array]:
        """Of photographs features or maps, of the classifier's rows features; and the concept indices of both (B,)."""
        from_rows = round(self.mix.photographs * self.mix.classifier_share)
        concepts = rng.choice(self.shown, self.mix.photographs - from_rows, p=self.weights)
        places = self.places.draw(rng, concepts)
        rows = rng.integers(len(self.rows.concepts), size=from_rows)
        noise = rng.standard_normal((from_rows, len(self.spread)), np.float32) * self.spread
        imagined = np.maximum(self.rows.features[rows].astype(np.float32) + noise, 0)  # a ReLU6 ends the tower
        return self.images[places], imagined, np.concatenate([concepts, self.rows.concepts[rows]])

    def _draw_concepts(self, rng: np.random.Generator, shown: Array) -> Array:
        """Concept indices (K,): those of the photographs, as far as there is room, and others at random."""
        own = np.intersect1d(shown, self.nameable)
        if len(own) > self.mix.texts:
            own = rng.choice(own, self.mix.texts, replace=False)
        others = np.setdiff1d(self.nameable, own)
        missing = min(self.mix.texts - len(own), len(others))
        return np.concatenate([own, rng.choice(others, missing, replace=False)])


def relations(ontology: Ontology, shown: Array, named: Array, own_weight: float) -> tuple[Array, Array]:
    """What is right and what is known of photographs of `shown` (B,) and texts of `named` (K,), concept indices.

    Returns:
        (B, K) float32: weight of a right pair, 0 elsewhere; and (B, K) bool: False where the text names a narrower
        kind of what is shown.
    """
    right = ontology.ancestors[np.ix_(shown, named)]
    narrower = ontology.ancestors[np.ix_(named, shown)].T & ~right
    own = shown[:, None] == named
    broader = right & ~own
    share = (1 - own_weight) / np.maximum(broader.sum(1, keepdims=True), 1)
    return np.where(own, own_weight, broader * share).astype(np.float32), ~narrower


def validation_batches(
    ontology: Ontology, photographs: Photographs, phrases: Phrases, mix: Mix, *, mapped: bool = False
) -> Iterator[dict[str, Array]]:
    """All photographs once, against one fixed text of every concept that any of them shows."""
    texts = Groups.by_value(phrases.concepts, len(ontology))
    named = np.flatnonzero(ontology.ancestors[np.unique(photographs.concepts)].any(0) & (texts.counts > 0))
    features = phrases.features[texts.first(named)].astype(np.float32)
    for start in range(0, len(photographs.concepts), mix.photographs):
        shown = photographs.concepts[start : start + mix.photographs]
        mask = np.arange(mix.photographs) < len(shown)
        positive, known = relations(ontology, np.resize(shown, len(mask)), named, mix.own_weight)
        rows = np.arange(start, start + len(shown))
        yield {
            "images": photographs.seen(mapped)[np.resize(rows, len(mask))],
            "text_features": features,
            "positive": positive,
            "known": known & mask[:, None],
            "mask": mask,
        }

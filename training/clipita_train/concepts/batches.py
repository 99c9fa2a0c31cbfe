"""Batches for training projections: photographs against texts of concepts, words against words, and captions.

Photographs are drawn concept by concept, whatever the sizes of the collections. Each photograph meets one phrasing of
many concepts at once. Texts of its own concept and of broader kinds are right, and other texts are wrong; but a text of
a narrower kind may be either, and is left out of the loss.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from clipita.system.arrays import Array
from clipita_train.concepts.features import ConceptFeatures, Groups, PhotographFeatures, PhraseFeatures
from clipita_train.data.concepts import Ontology


@dataclass(frozen=True)
class Mix:
    """The sizes and shares of a batch."""

    photographs: int = 256
    texts: int = 768
    words: int = 256  # pairs of words of one meaning
    captions: int = 128  # photographs with a caption
    balance: float = 0.5  # a concept with n photographs is drawn n ** balance times as often as one with 1
    own_weight: float = 0.5  # of the text of the photograph's own concept; broader kinds share the rest
    classifier_share: float = 0.15  # of the photographs, those that are classifier rows


class ConceptBatches:
    """An endless iterator of training batches, which can be resumed by the number of batches that were drawn.

    Args:
        ontology: Says which concept is a kind of which.
        features: What batches are drawn from.
        mix: The sizes and shares of a batch.
        seed: Of the draws.
        mapped: Give maps of photographs instead of pooled features, for an image tower whose tail learns.
    """

    def __init__(
        self, ontology: Ontology, features: ConceptFeatures, mix: Mix, *, seed: int, mapped: bool = False
    ) -> None:
        self.ontology, self.features, self.mix, self.seed = ontology, features, mix, seed
        self.mapped, self.drawn = mapped, 0
        photographs = features.photographs
        self.images = photographs.model_inputs(mapped)
        self.places = Groups.by_value(photographs.concepts, len(ontology))
        self.texts = Groups.by_value(features.phrases.concepts, len(ontology))
        self.shown = np.flatnonzero(self.places.counts)
        # A concept is drawn by the mean boost of its photographs; boosts do not choose among them.
        boosts = np.bincount(photographs.concepts, photographs.boosts, len(ontology))[self.shown]
        weights = self.places.counts[self.shown] ** (mix.balance - 1) * boosts
        self.weights = weights / weights.sum()
        seen = ontology.ancestors[np.concatenate([self.shown, features.classifier_rows.concepts])].any(0)
        self.nameable = np.flatnonzero(seen & (self.texts.counts > 0))

    def __iter__(self) -> "ConceptBatches":
        return self

    def __len__(self) -> int:
        """Return the length of an epoch: batches in which as many photographs are drawn as there are."""
        return max(1, len(self.features.photographs.concepts) // self.mix.photographs)

    def get_state(self) -> int:
        """Return the number of batches drawn."""
        return self.drawn

    def set_state(self, state: int) -> None:
        """Go on after as many batches as `get_state` returned."""
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
            "text_features": self.features.phrases.features[self.texts.draw(rng, named)].astype(np.float32),
            "positive": positive,
            "known": known,
        }
        if self.features.words is not None:
            batch["word_left"], batch["word_right"] = self.features.words.draw(rng, self.mix.words)
        if self.features.captions is not None:
            batch["caption_left"], batch["caption_right"] = self.features.captions.draw(
                rng, self.mix.captions, mapped=self.mapped
            )
        return batch

    def _draw_photographs(self, rng: np.random.Generator) -> tuple[Array, Array, Array]:
        """Draw photographs, and classifier rows in the place of photographs.

        Returns:
            The photographs (features or maps), the classifier rows with noise (features), and the concept indices (B,)
            of both, one after the other.
        """
        classifier_rows, spread = self.features.classifier_rows, self.features.spread
        from_rows = round(self.mix.photographs * self.mix.classifier_share)
        concepts = rng.choice(self.shown, self.mix.photographs - from_rows, p=self.weights)
        places = self.places.draw(rng, concepts)
        rows = rng.integers(len(classifier_rows.concepts), size=from_rows)
        noise = rng.standard_normal((from_rows, len(spread)), np.float32) * spread
        imagined = np.maximum(classifier_rows.features[rows].astype(np.float32) + noise, 0)  # the tower ends in a ReLU6
        return self.images[places], imagined, np.concatenate([concepts, classifier_rows.concepts[rows]])

    def _draw_concepts(self, rng: np.random.Generator, shown: Array) -> Array:
        """Draw the concepts of the texts (K,): those of the photographs as far as there is room, then others."""
        own = np.intersect1d(shown, self.nameable)
        if len(own) > self.mix.texts:
            own = rng.choice(own, self.mix.texts, replace=False)
        others = np.setdiff1d(self.nameable, own)
        missing = min(self.mix.texts - len(own), len(others))
        return np.concatenate([own, rng.choice(others, missing, replace=False)])


def relations(ontology: Ontology, shown: Array, named: Array, own_weight: float) -> tuple[Array, Array]:
    """Say which texts are right for which photographs.

    Args:
        ontology: Says which concept is a kind of which.
        shown: (B,) integers, the concept that each photograph shows.
        named: (K,) integers, the concept that each text names.
        own_weight: Weight of the text of the photograph's own concept; texts of broader kinds share the rest.

    Returns:
        (B, K) float32, the weight of each right pair and 0 elsewhere; and (B, K) bool, False where it is not known
        whether the text is right, since it names a narrower kind of what is shown.
    """
    right = ontology.ancestors[np.ix_(shown, named)]
    narrower = ontology.ancestors[np.ix_(named, shown)].T & ~right
    own = shown[:, None] == named
    broader = right & ~own
    share = (1 - own_weight) / np.maximum(broader.sum(1, keepdims=True), 1)
    return np.where(own, own_weight, broader * share).astype(np.float32), ~narrower


def validation_batches(
    ontology: Ontology, photographs: PhotographFeatures, phrases: PhraseFeatures, mix: Mix, *, mapped: bool = False
) -> Iterator[dict[str, Array]]:
    """Yield all photographs once, each against the first text of every concept that any of them shows."""
    texts = Groups.by_value(phrases.concepts, len(ontology))
    named = np.flatnonzero(ontology.ancestors[np.unique(photographs.concepts)].any(0) & (texts.counts > 0))
    features = phrases.features[texts.first(named)].astype(np.float32)
    for start in range(0, len(photographs.concepts), mix.photographs):
        shown = photographs.concepts[start : start + mix.photographs]
        mask = np.arange(mix.photographs) < len(shown)
        positive, known = relations(ontology, np.resize(shown, len(mask)), named, mix.own_weight)
        rows = np.arange(start, start + len(shown))
        yield {
            "images": photographs.model_inputs(mapped)[np.resize(rows, len(mask))],
            "text_features": features,
            "positive": positive,
            "known": known & mask[:, None],
            "mask": mask,
        }

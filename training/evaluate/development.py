"""Zero-shot classification of development photographs by Italian labels, with a model as its users load it.

Protocol: every photograph of a development set against one label for each class of that set, in the model's default
templates; the label is the concept's own, article included. Two further questions are asked of the same photographs:

- unseen phrasings: classes that have held-out synonyms are asked for by one of them (all other classes by their label),
  and compared on the same photographs with a synonym that training saw; three times, each time by the next synonym;
- broader kinds: "un uccello", "un veicolo stradale" instead of the class, again with seen and with held-out phrasings;
  and ten everyday labels, all of them asked for, against the photographs that show something of exactly one of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import clipita
from training.data.captions import person_or_dog
from training.data.concepts import Concept, Ontology
from training.data.sources import Example
from training.evaluate.metrics import accuracy_at_k

Array = np.ndarray[Any, np.dtype[Any]]

PHRASING_ROUNDS = 3

# Kinds that exclude one another, under which the classes of Tiny ImageNet and Caltech-101 fall.
BROADER = (
    "dog", "feline", "bird", "fish", "insect", "reptile", "amphibian", "monkey", "bear", "marine_mammal", "shellfish",
    "land_vehicle", "watercraft", "aircraft", "musical_instrument", "fruit", "vegetable", "dish", "clothing",
    "furniture", "building", "bridge", "flower", "person", "weapon", "ball", "kitchenware", "landscape",
)  # fmt: skip


@dataclass(frozen=True)
class Kinds:
    """A question across sources: which of these kinds of thing is it?"""

    task: str
    sources: tuple[str, ...]
    kinds: tuple[str, ...]


_BANANA, _ORANGE, _PIZZA = "n07753592", "n07747607", "n07873807"
KINDS = (
    Kinds("broader kinds", ("tiny_imagenet", "caltech101"), BROADER),
    Kinds(
        "ten: animals, car, aeroplane",
        ("animals8", "vehicles_unsplash", "animals10_sample"),
        ("dog", "cat", "horse", "sheep", "cow", "elephant", "monkey", "bird", "car", "airplane"),
    ),
    Kinds(
        "ten: farm animals and others",
        ("animals10_sample", "corel1000"),
        ("dog", "cat", "horse", "sheep", "cow", "elephant", "chicken", "squirrel_kind", "butterfly", "spider"),
    ),
    Kinds(
        "ten: people and others",
        ("flickr8k", "vehicles_unsplash", "corel1000"),
        ("person", "cat", "horse", "elephant", "car", "airplane", "bus", "flower", "beach", "mountain"),
    ),
    Kinds(
        "ten: outdoors",
        ("corel1000", "animals8"),
        ("beach", "mountain", "bus", "elephant", "horse", "flower", "food", "ruins", "dog", "bear"),
    ),
    Kinds(
        "ten: food and others",
        ("fruits3", "food4", "fruits_phone"),
        ("apple", _BANANA, _ORANGE, _PIZZA, "hamburger", "pasta", "salad", "dog", "car", "chair"),
    ),
    Kinds(
        "ten: rooms and landscapes",
        ("domes_interiors", "corel1000"),
        ("kitchen", "bedroom", "bathroom", "office", "river", "mountain", "desert", "beach", "bridge", "church"),
    ),
    Kinds(
        "ten: rooms and landscapes (128 px)",
        ("miniplaces",),
        ("kitchen", "bedroom", "bathroom", "office", "river", "mountain", "desert", "coast", "bridge", "church"),
    ),
)


@dataclass(frozen=True)
class Score:
    """One line of the table: accuracies as fractions; `seen` and `unseen` are top-1 on the photographs of both."""

    task: str
    photographs: int
    labels: int
    top1: float
    top5: float
    seen: float | None = None
    unseen: float | None = None
    compared: int = 0  # photographs behind `seen` and `unseen`

    def to_json(self) -> dict[str, object]:
        """Its fields."""
        return asdict(self)


def evaluate(model: clipita.Model, examples: Sequence[Example], root: Path, ontology: Ontology) -> list[Score]:
    """A score for each source that has labelled development photographs, and one for broader kinds.

    Photographs that cannot be read are left out; the numbers of photographs say how many were.

    Raises:
        FileNotFoundError: no photograph of a source can be read.
    """
    scores: list[Score] = []
    embedded: dict[str, tuple[Array, Array]] = {}
    judged = [e for e in examples if e.split == "dev" and _shown(e) is not None]
    for source in dict.fromkeys(e.source for e in judged):
        mine = [e for e in judged if e.source == source]
        results = list(model.iter_encode_image(root / e.path for e in mine))
        if all(r.embedding is None for r in results):
            raise FileNotFoundError(f"no photograph of {source!r} can be read under {root}: {results[0].error}")
        images = np.array([r.embedding for r in results if r.embedding is not None])
        read = [e for e, r in zip(mine, results, strict=True) if r.embedding is not None]
        shown = np.array([ontology.index[str(_shown(e))] for e in read])
        if not any(e.captions for e in mine):  # what captions tell of people overlaps: for the questions below only
            scores.append(_score(source, model, images, shown, ontology))
        embedded[source] = images, shown
    for question in KINDS:
        parts = [embedded[source] for source in question.sources if source in embedded]
        if parts:
            images, shown = (np.concatenate(sides) for sides in zip(*parts, strict=True))
            kinds = np.array([ontology.index[kind] for kind in question.kinds])
            under = ontology.ancestors[np.ix_(shown, kinds)]
            only = under.sum(1) == 1
            if only.any():
                asked = kinds[under[only].argmax(1)]
                scores.append(_score(question.task, model, images[only], asked, ontology, kinds))
    return scores


def _shown(example: Example) -> str | None:
    return example.judged_as or example.concept or person_or_dog(example.captions)


def _score(
    task: str, model: clipita.Model, images: Array, shown: Array, ontology: Ontology, classes: Array | None = None
) -> Score:
    """Images (N, E) of the concepts (N,) against the labels of the classes (K,), or else of the concepts among them."""
    classes = np.unique(shown if classes is None else classes)
    right = np.searchsorted(classes, shown)
    concepts = [ontology.concepts[c] for c in classes]

    def ranks(phrase: Callable[[Concept], str]) -> Array:
        labels = _distinct([phrase(concept) for concept in concepts])
        return images @ model.label_bank(labels).embeddings.T

    cosines = ranks(lambda concept: concept.label)
    score = Score(task, len(images), len(classes), accuracy_at_k(cosines, right, 1), accuracy_at_k(cosines, right, 5))
    rows = np.isin(right, [i for i, concept in enumerate(concepts) if concept.held_out])
    if not rows.any():
        return score

    def mean_top1(phrase: Callable[[Concept, int], str]) -> float:
        rounds = [ranks(lambda concept, i=i: phrase(concept, i))[rows] for i in range(PHRASING_ROUNDS)]
        return float(np.mean([accuracy_at_k(cosines, right[rows], 1) for cosines in rounds]))

    seen, unseen = mean_top1(_seen_phrase), mean_top1(_unseen_phrase)
    return Score(**{**asdict(score), "seen": seen, "unseen": unseen, "compared": int(rows.sum())})


def _seen_phrase(concept: Concept, i: int) -> str:
    """For a concept with held-out synonyms its i-th other synonym, if it has one: like against like."""
    others = concept.phrases[1:]
    return others[i % len(others)] if concept.held_out and others else concept.label


def _unseen_phrase(concept: Concept, i: int) -> str:
    return concept.held_out[i % len(concept.held_out)] if concept.held_out else concept.label


def _distinct(labels: list[str]) -> list[str]:
    """Two concepts may share a synonym; the second then keeps a trailing full stop, so that a bank can hold both."""
    seen: set[str] = set()
    distinct = []
    for label in labels:
        while label in seen:
            label += "."
        seen.add(label)
        distinct.append(label)
    return distinct


def markdown(scores: Sequence[Score]) -> str:
    """The table, percentages with one decimal."""
    lines = [
        "| development set | photographs | labels | top-1 | top-5 | seen phrasing | unseen phrasing |",
        "|---|---|---|---|---|---|---|",
    ]
    for s in scores:
        compared = (
            ("", "") if s.seen is None or s.unseen is None else (f"{s.seen:.1%} of {s.compared}", f"{s.unseen:.1%}")
        )
        lines.append(
            f"| {s.task} | {s.photographs} | {s.labels} | {s.top1:.1%} | {s.top5:.1%} | {compared[0]} | {compared[1]} |"
        )
    return "\n".join(lines) + "\n"

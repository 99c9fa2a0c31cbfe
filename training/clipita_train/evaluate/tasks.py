"""Define the questions that a recipe's development photographs are asked.

A question compares photographs with one label for each of its classes; each photograph shows exactly one of the
classes. There is a question for each source, and there are questions across sources.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import clipita
from clipita.system.arrays import Array
from clipita_train.data.captions.subjects import person_or_dog, things_named
from clipita_train.data.concepts import Ontology
from clipita_train.data.photographs.example import Example
from clipita_train.evaluate.embedding_cache import embed_images

# Kinds of things to which the classes of Tiny ImageNet and Caltech-101 belong. No two of them overlap.
BROADER = (
    "dog", "feline", "bird", "fish", "insect", "reptile", "amphibian", "monkey", "bear", "marine_mammal", "shellfish",
    "land_vehicle", "watercraft", "aircraft", "musical_instrument", "fruit", "vegetable", "dish", "clothing",
    "furniture", "building", "bridge", "flower", "person", "weapon", "ball", "kitchenware", "landscape",
)  # fmt: skip


@dataclass(frozen=True)
class CrossSourceQuestion:
    """A question across sources: which of these kinds of things does a photograph show?"""

    task: str
    sources: tuple[str, ...]
    kinds: tuple[str, ...]


_BANANA, _ORANGE, _PIZZA = "n07753592", "n07747607", "n07873807"
TEN = (
    CrossSourceQuestion(
        "ten: animals, car, aeroplane",
        ("animals8", "vehicles_unsplash", "animals10_sample"),
        ("dog", "cat", "horse", "sheep", "cow", "elephant", "monkey", "bird", "car", "airplane"),
    ),
    CrossSourceQuestion(
        "ten: farm animals and others",
        ("animals10_sample", "corel1000"),
        ("dog", "cat", "horse", "sheep", "cow", "elephant", "chicken", "squirrel_kind", "butterfly", "spider"),
    ),
    CrossSourceQuestion(
        "ten: people and others",
        ("flickr8k", "vehicles_unsplash", "corel1000"),
        ("person", "cat", "horse", "elephant", "car", "airplane", "bus", "flower", "beach", "mountain"),
    ),
    CrossSourceQuestion(
        "ten: outdoors",
        ("corel1000", "animals8"),
        ("beach", "mountain", "bus", "elephant", "horse", "flower", "food", "building", "dog", "bear"),
    ),
    CrossSourceQuestion(
        "ten: food and others",
        ("fruits3", "food4", "fruits_phone"),
        ("apple", _BANANA, _ORANGE, _PIZZA, "hamburger", "pasta", "salad", "dog", "car", "chair"),
    ),
    CrossSourceQuestion(
        "ten: rooms and landscapes",
        ("domes_interiors", "corel1000"),
        ("kitchen", "bedroom", "bathroom", "office", "river", "mountain", "desert", "beach", "bridge", "church"),
    ),
    CrossSourceQuestion(
        "ten: rooms and landscapes (128 px)",
        ("miniplaces",),
        ("kitchen", "bedroom", "bathroom", "office", "river", "mountain", "desert", "coast", "bridge", "church"),
    ),
)
KINDS = (CrossSourceQuestion("broader kinds", ("tiny_imagenet", "caltech101"), BROADER), *TEN)


@dataclass(frozen=True)
class EmbeddedPhotographs:
    """The photographs of a source that can be read.

    Attributes:
        paths: N paths.
        images: (N, E) embeddings.
        shown: (N,) indices of the concepts that they show.
        captioned: Whether these were found in captions, which mention people and dogs, but not everything else.
        besides: For each photograph, other concepts that its captions name.
    """

    paths: tuple[str, ...]
    images: Array
    shown: Array
    captioned: bool
    besides: tuple[tuple[int, ...], ...]

    @property
    def chooses(self) -> Array:
        """(N,) bool, the half of each photograph, by a hash of its path.

        True is the half that choices are made on, False the half that they are judged on.
        """
        return np.array([hashlib.sha1(path.encode()).digest()[-1] % 2 == 0 for path in self.paths])

    def part(self, rows: Array) -> "EmbeddedPhotographs":
        """Return the photographs where `rows` (N,) bool is True."""
        paths = tuple(path for path, row in zip(self.paths, rows, strict=True) if row)
        besides = tuple(more for more, row in zip(self.besides, rows, strict=True) if row)
        return EmbeddedPhotographs(paths, self.images[rows], self.shown[rows], self.captioned, besides)


@dataclass(frozen=True)
class Question:
    """A question to photographs.

    Attributes:
        task: Its name.
        photographs: N photographs.
        classes: (K,) indices of the concepts that are asked for, ascending.
        right: (N,) places in `classes`.
    """

    task: str
    photographs: EmbeddedPhotographs
    classes: Array
    right: Array


def embed_sources(
    model: clipita.Model, examples: Sequence[Example], root: Path, ontology: Ontology, cache: Path
) -> dict[str, EmbeddedPhotographs]:
    """Embed the development photographs of each source that show a known concept.

    Args:
        model: The model.
        examples: The examples of a manifest.
        root: The folder that their paths are relative to.
        ontology: The concepts.
        cache: A folder to keep embeddings in.

    Raises:
        FileNotFoundError: No photograph of a source can be read.
    """
    found: dict[str, EmbeddedPhotographs] = {}
    judged = [e for e in examples if e.split == "dev" and _shown(e) is not None]
    for source in dict.fromkeys(e.source for e in judged):
        mine = [e for e in judged if e.source == source]
        there = [e for e in mine if (root / e.path).is_file()]
        images, readable = embed_images(model, [root / e.path for e in there], cache)
        if not readable.any():
            raise FileNotFoundError(
                f"no development photograph of {source!r} can be read under {root}, such as {mine[0].path}"
            )
        read = [e for e, good in zip(there, readable, strict=True) if good]
        shown = np.array([ontology.index[str(_shown(e))] for e in read])
        captioned = any(e.captions for e in mine)
        named = [[thing for thing in things_named(e.captions) if thing in ontology.index] for e in read]
        besides = tuple(tuple(ontology.index[thing] for thing in things) for things in named)
        found[source] = EmbeddedPhotographs(tuple(e.path for e in read), images[readable], shown, captioned, besides)
    return found


def questions(sources: dict[str, EmbeddedPhotographs], ontology: Ontology) -> Iterator[Question]:
    """Yield the question of each source, and then those questions across sources that photographs fit.

    Captioned sources have no question of their own, since their concepts overlap.
    """
    for source, found in sources.items():
        if not found.captioned:
            classes, right = np.unique(found.shown, return_inverse=True)
            yield Question(source, found, classes, right)
    for kinds in KINDS:
        question = across(kinds, sources, ontology)
        if question is not None:
            yield question


def across(kinds: CrossSourceQuestion, sources: dict[str, EmbeddedPhotographs], ontology: Ontology) -> Question | None:
    """Make a question across sources from photographs that show exactly one of its kinds; None if there are none."""
    parts = [sources[source] for source in kinds.sources if source in sources]
    if not parts:
        return None
    everything = joined(parts)
    classes = np.sort([ontology.index[kind] for kind in kinds.kinds])
    under = ontology.ancestors[np.ix_(everything.shown, classes)]
    more = np.array(
        [ontology.ancestors[np.ix_(np.array(named, np.int64), classes)].any(0) for named in everything.besides]
    )
    only = (under.sum(1) == 1) & ~(more & ~under).any(1)
    return Question(kinds.task, everything.part(only), classes, under[only].argmax(1)) if only.any() else None


def joined(parts: Sequence[EmbeddedPhotographs]) -> EmbeddedPhotographs:
    """Join the photographs of several sources."""
    return EmbeddedPhotographs(
        tuple(path for part in parts for path in part.paths),
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.shown for part in parts]),
        any(part.captioned for part in parts),
        tuple(more for part in parts for more in part.besides),
    )


def _shown(example: Example) -> str | None:
    return example.judged_as or example.concept or person_or_dog(example.captions)

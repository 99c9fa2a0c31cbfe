"""Columns by a model, and by words: how well a caption fits its photograph, and which rows balance a collection.

Balancing is MetaCLIP's: rows are matched with concepts by the words of their captions; a concept that more than `cap`
rows name lends each of them only a chance of cap / count, so that "uomo" does not drown "fagotto". Every function is
pure, and what it decides of a row depends on the row's id and on the counts, never on other rows or their order: shards
can be counted and judged one by one, anywhere.

Source: Xu et al., "Demystifying CLIP Data" (arXiv:2309.16671), algorithm 1. Here words are matched whole, and
chance is a hash.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

import clipita
from clipita.images.pixels import ImageInput
from clipita_train.data.concepts import load_ontology, without_article
from clipita_train.data.hashes import fraction_of
from clipita_train.intervals import Array
from clipita_train.towers.features import cached_rows

_WORD = re.compile(r"[^\W_]+")


def cosines(
    model: clipita.Model,
    images: Sequence[ImageInput],
    captions: Sequence[Sequence[str]],
    *,
    keys: Sequence[str] | None = None,
    cache: Path | None = None,
) -> list[list[float]]:
    """How well each caption fits its row's image.

    Args:
        model: any that `clipita.load` gives; long captions are cut to what it reads.
        images: one a row; as `model.encode_image` takes them.
        captions: of each row, none or more; blank ones have no meaning and get NaN.
        keys: what an image is known by in the cache, say a hash of its bytes; needed with `cache`.
        cache: a folder in which embeddings are kept, by the model's fingerprint: one for all shards will do.

    Returns:
        For each row the cosines of its captions, -1 to 1; NaN if the image cannot be read.

    Raises:
        ValueError: images, captions or keys differ in number, or there is a cache without keys.
    """
    if not len(images) == len(captions) == len(images if keys is None else keys) or (cache and keys is None):
        raise ValueError(
            f"expected as many captions and keys as images, and keys with a cache: {len(images)} images,"
            f" {len(captions)} rows of captions, {'no' if keys is None else len(keys)} keys"
        )

    def encode_images(some: Sequence[ImageInput]) -> Array:
        rows = np.full((len(some), model.embed_dim), np.nan, np.float32)
        for row, result in zip(rows, model.iter_encode_image(some), strict=True):
            if result.embedding is not None:
                row[:] = result.embedding
        return rows

    def encode_texts(some: Sequence[str]) -> Array:
        return model.encode_text(list(some), on_truncate="ignore")

    texts = list(dict.fromkeys(text for row in captions for text in row if text.strip()))
    if cache is None or keys is None:
        image_rows, text_rows = encode_images(images), encode_texts(texts)
    else:
        found = dict(zip(keys, images, strict=True))
        width, fingerprint = model.embed_dim, model.fingerprint
        image_rows = cached_rows(
            *(list(keys), fingerprint, cache / "images", lambda some: encode_images([found[key] for key in some])),
            *(width, "images"),
            dtype=np.float32,
        )
        text_rows = cached_rows(texts, fingerprint, cache / "texts", encode_texts, width, "captions", dtype=np.float32)
    place = {text: i for i, text in enumerate(texts)}
    return [
        [float(image @ text_rows[place[text]]) if text in place else float("nan") for text in row]
        for image, row in zip(image_rows, captions, strict=True)
    ]


class Matcher:
    """Finds which concepts captions name.

    Args:
        concepts: name of a concept -> the words or phrases that mean it; case and punctuation do not count.

    Raises:
        ValueError: a concept has a phrase without letters or digits.
    """

    def __init__(self, concepts: Mapping[str, Iterable[str]]) -> None:
        self._meant: dict[tuple[str, ...], list[str]] = {}
        for concept, phrases in concepts.items():
            for phrase in phrases:
                words = _words(phrase)
                if not words:
                    raise ValueError(f"the concept {concept!r} has a phrase without words: {phrase!r}")
                self._meant.setdefault(words, []).append(concept)
        self._longest = max(map(len, self._meant), default=0)

    def __call__(self, captions: Sequence[Sequence[str]]) -> list[list[str]]:
        """For each row, the concepts that any of its captions names, sorted, each once."""
        return [sorted({concept for caption in row for concept in self._named(caption)}) for row in captions]

    def _named(self, caption: str) -> Iterable[str]:
        words = _words(caption)
        for start in range(len(words)):
            for stop in range(start + 1, min(start + self._longest, len(words)) + 1):
                yield from self._meant.get(words[start:stop], ())


def italian_concepts() -> dict[str, set[str]]:
    """The concepts of data/labels, for a `Matcher`: labels, plurals and synonyms without their articles."""
    return {
        concept.id: {without_article(phrase) for phrase in (concept.label, concept.plural, *concept.synonyms) if phrase}
        for concept in load_ontology().concepts
    }


def counts(concepts: Iterable[Sequence[str]]) -> Counter[str]:
    """How many rows name each concept; the sum of the counts of shards is the count of all of them."""
    return Counter(concept for row in concepts for concept in row)


def balanced(
    ids: Sequence[str],
    concepts: Sequence[Sequence[str]],
    counted: Mapping[str, int],
    *,
    cap: int,
    seed: int = 0,
    keep_unmatched: bool = False,
) -> list[bool]:
    """Which rows a balanced selection keeps: those of which one concept or more draws its chance, cap / count.

    A concept with at most `cap` rows keeps all of them. With a larger cap, what was kept stays.

    Args:
        ids: of the rows, unique in the collection.
        concepts: that each row names, from a `Matcher`.
        counted: `counts` of the whole collection.
        cap: about how many rows a concept keeps for its own sake; 20,000 in MetaCLIP's 400 M.
        seed: another one keeps others.
        keep_unmatched: whether rows that name no concept are kept. MetaCLIP drops them.
    """
    return [
        any(_chance(id, concept, seed) * counted[concept] < cap for concept in row) if row else keep_unmatched
        for id, row in zip(ids, concepts, strict=True)
    ]


def _chance(id: str, concept: str, seed: int) -> float:
    return fraction_of(f"{seed}\0{concept}\0{id}")


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(text.lower()))

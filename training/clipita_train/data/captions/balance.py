"""Select the rows of a collection so that no concept outweighs the others.

The method is MetaCLIP's: rows are matched with concepts by the words of their captions; a concept that more than `cap`
rows name lends each of them only a chance of cap / count, so that "uomo" does not drown "fagotto". Every function is
pure, and what it decides of a row depends on the row's id and on the counts, never on other rows or their order: shards
can be counted and judged one by one, anywhere.

Source: Xu et al., "Demystifying CLIP Data" (arXiv:2309.16671), algorithm 1. Here words are matched whole, and
chance is a hash.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from clipita_train.data.chance import fraction_of
from clipita_train.data.concepts import load_ontology, without_article

_WORD = re.compile(r"[^\W_]+")


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

"""Select the rows of a collection so that no concept outweighs the others, as MetaCLIP does.

Rows are matched with concepts by the words of their captions. If more than `cap` rows name a concept, each of them is
kept only with probability cap / count, so that "uomo" does not drown "fagotto". All functions are pure. A decision
depends on the row's id and on the counts, and not on other rows or their order, so that shards can be counted and
judged one by one, on any machine.

Source: Xu et al., "Demystifying CLIP Data" (arXiv:2309.16671), algorithm 1. Here words are matched whole, and a hash
takes the place of random numbers.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from clipita_train.data.chance import fraction_of
from clipita_train.data.concepts import load_ontology, without_article

_WORD = re.compile(r"[^\W_]+")


class Matcher:
    """Finds the concepts that captions name.

    Args:
        concepts: Name of a concept to the words or phrases that mean it; case and punctuation are ignored.

    Raises:
        ValueError: A phrase has no letters or digits.
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
        """Return, for each row of captions, the concepts that any of the captions names, sorted, each once."""
        return [sorted({concept for caption in row for concept in self._named(caption)}) for row in captions]

    def _named(self, caption: str) -> Iterable[str]:
        words = _words(caption)
        for start in range(len(words)):
            for stop in range(start + 1, min(start + self._longest, len(words)) + 1):
                yield from self._meant.get(words[start:stop], ())


def italian_concepts() -> dict[str, set[str]]:
    """Return the concepts of data/labels for a `Matcher`: labels, plurals and synonyms without articles."""
    return {
        concept.id: {without_article(phrase) for phrase in (concept.label, concept.plural, *concept.synonyms) if phrase}
        for concept in load_ontology().concepts
    }


def counts(concepts: Iterable[Sequence[str]]) -> Counter[str]:
    """Count the rows that name each concept. Counts of shards can be added up."""
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
    """Decide which rows a balanced selection keeps.

    A row is kept if at least one of its concepts draws it, which happens with probability cap / count. So all rows of a
    concept with at most `cap` rows are kept. Raising the cap keeps all rows that were kept before.

    Args:
        ids: Ids of the rows, unique in the collection.
        concepts: The concepts that each row names, from a `Matcher`.
        counted: `counts` of the whole collection.
        cap: About how many rows are kept for each concept; MetaCLIP has 20,000 for 400 million rows.
        seed: Another seed keeps other rows.
        keep_unmatched: Whether to keep rows that name no concept. MetaCLIP drops them.
    """
    return [
        any(_chance(id, concept, seed) * counted[concept] < cap for concept in row) if row else keep_unmatched
        for id, row in zip(ids, concepts, strict=True)
    ]


def _chance(id: str, concept: str, seed: int) -> float:
    return fraction_of(f"{seed}\0{concept}\0{id}")


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(text.lower()))

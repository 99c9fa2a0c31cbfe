"""The Italian concepts: what photographs may show, their Italian words, and how concepts are related.

`labels/everyday.tsv`, `labels/imagenet.tsv` and `labels/more.tsv` have one concept on each line:

      id <TAB> label <TAB> plural <TAB> synonyms <TAB> parents

Labels and synonyms carry their indefinite or partitive article ("un gatto", "del pane"). Several synonyms or parents
are separated by "; ". `labels/descriptions.tsv` describes some concepts in other words: id <TAB> descriptions.
`labels/classes.tsv` maps classes of data sets to concepts: data set <TAB> class <TAB> concept id.
"""

import functools
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import resources

import numpy as np

HELD_OUT_PERCENT = 15  # of the synonyms, also those of broader kinds: no training step sees them
TABLES = ("everyday.tsv", "imagenet.tsv", "more.tsv")

_ARTICLE = re.compile(r"^(un'|dell'|l'|(un|uno|una|del|dello|della|dei|degli|delle|il|lo|la|i|gli|le) )")
_DEFINITE = {
    "uno ": "lo ",
    "una ": "la ",
    "un'": "l'",
    "del ": "il ",
    "dello ": "lo ",
    "della ": "la ",
    "dell'": "l'",
    "dei ": "i ",
    "degli ": "gli ",
    "delle ": "le ",
}


# Sentences around a phrase, such as captions and users write. Training shows each phrase in two of them.
CONTEXTS = (
    "un primo piano di {}",
    "una foto a colori di {}",
    "una foto in bianco e nero di {}",
    "una foto sfocata di {}",
    "{} in primo piano",
    "{} sullo sfondo",
    "{} all'aperto",
    "{} al chiuso",
    "{} in una giornata di sole",
    "si vede {}",
    "nella foto c'è {}",
    "ecco {}",
    "la fotografia mostra {}",
    "un bel ritratto di {}",
    "una scena con {}",
)
CONTEXTS_EACH = 2


@dataclass(frozen=True)
class Concept:
    """A kind of thing: its label ("un gatto"), plural ("gatti"), synonyms, and the ids of broader kinds."""

    id: str
    label: str
    plural: str
    synonyms: tuple[str, ...]
    parents: tuple[str, ...]
    descriptions: tuple[str, ...] = ()  # "un felino che fa le fusa"; for training only
    held_out: tuple[str, ...] = ()  # the synonyms that are used for evaluation only

    @property
    def phrases(self) -> tuple[str, ...]:
        """The phrasings that training may use, the label first."""
        return (self.label, *(p for p in self.synonyms if p not in self.held_out))


class Ontology:
    """All concepts in the order of the files, and their ancestors.

    Attributes:
        concepts: The concepts.
        index: Id of a concept to its place.
        ancestors: (K, K) bool; row k marks concept k itself and all broader kinds of it.
    """

    def __init__(self, concepts: Sequence[Concept]):
        self.concepts = tuple(concepts)
        self.index = {c.id: k for k, c in enumerate(self.concepts)}
        if len(self.index) != len(self.concepts):
            twice = sorted({c.id for c in self.concepts if sum(c.id == d.id for d in self.concepts) > 1})
            raise ValueError(f"concept ids must be unique, these are not: {', '.join(twice)}")
        unknown = sorted({p for c in self.concepts for p in c.parents if p not in self.index})
        if unknown:
            raise ValueError(f"these parents of concepts have no row of their own: {', '.join(unknown)}")
        self.ancestors = np.zeros((len(self), len(self)), bool)
        for k in range(len(self)):
            self._mark(k, k)

    def _mark(self, row: int, k: int) -> None:
        if not self.ancestors[row, k]:
            self.ancestors[row, k] = True
            for parent in self.concepts[k].parents:
                self._mark(row, self.index[parent])

    def __len__(self) -> int:
        return len(self.concepts)

    def __getitem__(self, concept_id: str) -> Concept:
        return self.concepts[self.index[concept_id]]


@functools.cache
def load_ontology() -> Ontology:
    """Load the concepts that come with the package.

    Raises:
        ValueError: A table is malformed, or an id or label stands twice, or a parent or described concept is unknown.
    """
    descriptions = {i: _split(cell) for i, cell in read_table("descriptions.tsv", 2)}
    concepts = [
        Concept(i, label, plural, _split(synonyms), _split(parents), descriptions.pop(i, ()))
        for table in TABLES
        for i, label, plural, synonyms, parents in read_table(table, 5)
    ]
    if descriptions:
        raise ValueError(f"labels/descriptions.tsv describes what no table has: {', '.join(sorted(descriptions))}")
    seen: dict[str, str] = {}
    for c in concepts:
        if seen.setdefault(c.label, c.id) != c.id:
            raise ValueError(
                f"label {c.label!r} stands for both {seen[c.label]!r} and {c.id!r}: give one of them another"
            )
    return Ontology(_hold_out(concepts))


@functools.cache
def class_concepts(dataset: str) -> dict[str, str]:
    """Return the concept id of each class of a data set, from `labels/classes.tsv`.

    Raises:
        ValueError: The table has no class of this data set.
    """
    table = {name: concept for source, name, concept in read_table("classes.tsv", 3) if source == dataset}
    if not table:
        raise ValueError(f"labels/classes.tsv has no class of the data set {dataset!r}")
    return table


def read_table(table: str, columns: int) -> Iterator[list[str]]:
    """Read the rows of a table in `labels/`; lines that begin with # are comments.

    Args:
        table: Name of the file.
        columns: How many columns every line must have.

    Raises:
        ValueError: A line has another number of columns.
    """
    text = resources.files("clipita_train.data").joinpath("labels", table).read_text("utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            cells = [cell.strip() for cell in line.split("\t")]
            if len(cells) != columns:
                raise ValueError(
                    f"labels/{table}, line {number}: expected {columns} columns, got {len(cells)}: {line!r}"
                )
            yield cells


def without_article(phrase: str) -> str:
    """Remove the article: 'un gatto' becomes 'gatto'."""
    return _ARTICLE.sub("", phrase, count=1)


def with_definite_article(phrase: str) -> str:
    """Make the article definite: 'un gatto' becomes 'il gatto'. Phrases without an article stay as they are."""
    bare = without_article(phrase)
    if phrase.startswith("un "):
        return ("l'" if bare[:1].lower() in "haeiouàèéìòù" else "il ") + bare
    return next((new + bare for old, new in _DEFINITE.items() if phrase.startswith(old)), phrase)


def phrasings(phrase: str) -> tuple[str, ...]:
    """Return the forms in which training shows a phrase: with each article, without one, and in captions."""
    bare = without_article(phrase)
    return (
        phrase,
        bare,
        with_definite_article(phrase),
        f"una foto di {phrase}",
        f"un'immagine di {phrase}",
        f"foto di {bare}",
        *(context.format(phrase) for context in _contexts(phrase)),
    )


def _contexts(phrase: str) -> list[str]:
    """Choose two of `CONTEXTS` for a phrase, by its hash."""
    start = _percentile(phrase) * len(CONTEXTS) // 100
    return [CONTEXTS[(start + 5 * i) % len(CONTEXTS)] for i in range(CONTEXTS_EACH)]


def training_texts(concept: Concept) -> tuple[str, ...]:
    """Return every text that training may show for a concept, in a fixed order."""
    texts = [t for phrase in concept.phrases for t in phrasings(phrase)]
    if concept.plural:
        texts += [concept.plural, f"una foto di {concept.plural}"]
    for description in concept.descriptions:
        texts += [description, f"una foto di {description}"]
    return tuple(dict.fromkeys(texts))


def _hold_out(concepts: Sequence[Concept]) -> list[Concept]:
    """Mark 15 % of the synonyms of each concept as held out, chosen by hash.

    Labels are never held out, since they are the words that people use first. Nor is a synonym that is also found
    elsewhere in the tables, even as a part of a longer phrase, since training would see it there.
    """
    found = Counter(
        part
        for c in concepts
        for phrase in map(_words, (c.label, c.plural, *c.synonyms, *c.descriptions))
        for part in {phrase[i:j] for i in range(len(phrase)) for j in range(i + 1, len(phrase) + 1)}
    )
    return [
        replace(c, held_out=tuple(p for p in c.synonyms if _percentile(p) < HELD_OUT_PERCENT and found[_words(p)] == 1))
        for c in concepts
    ]


def _words(phrase: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", without_article(phrase).lower()))


def _percentile(phrase: str) -> int:
    return int(hashlib.sha1(f"hold:{phrase}".encode()).hexdigest()[:8], 16) % 100


def _split(cell: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in cell.split(";") if part.strip())

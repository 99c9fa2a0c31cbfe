"""Read sentences with parts of speech from treebanks in CoNLL-U, and measure taggers on them.

Universal Dependencies writes "della" as two syntactic words under one surface token (8-9 della, 8 di, 9 la). A tagger
of running text sees surface tokens, and so does spaCy's Italian tokenizer; so these are learned and scored. A
contraction has the tag of its first word: ADP for "della", VERB for "vederlo". No proper noun is part of a contraction,
so the scores of PROPN are also those of syntactic words.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

TAGS = (
    *("ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM"),
    *("PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X"),
)


class Sentence(NamedTuple):
    """Surface tokens, whether a space follows each, and their tags."""

    words: tuple[str, ...]
    spaces: tuple[bool, ...]
    tags: tuple[str, ...]

    def part(self, start: int, stop: int) -> "Sentence":
        """Return the tokens from `start` up to `stop`."""
        return Sentence(self.words[start:stop], self.spaces[start:stop], self.tags[start:stop])


def read_conllu(path: Path) -> list[Sentence]:
    """Read the sentences of a treebank.

    Raises:
        ValueError: A line is malformed, or a tag is not one of the 17; the message has FILE:LINE.
    """
    sentences: list[Sentence] = []
    rows: list[tuple[str, bool, str]] = []
    covered: int = 0
    pending: tuple[str, bool] | None = None
    for place, columns in _lines(path):
        if columns is None:
            if rows:
                sentences.append(Sentence(*zip(*rows, strict=True)))
            rows, covered, pending = [], 0, None
            continue
        number, form, tag, space = columns[0], columns[1], columns[3], "SpaceAfter=No" not in columns[9]
        if "." in number:  # a word that the sentence leaves out
            continue
        if "-" in number:
            covered, pending = int(number.split("-")[1]), (form, space)
            continue
        if tag not in TAGS:
            raise ValueError(f"{place}: expected one of {', '.join(TAGS)}, not {tag!r}")
        if pending:
            rows.append((*pending, tag))
            pending = None
        elif int(number) > covered:
            rows.append((form, space, tag))
    return sentences


def read_tagged(path: Path) -> list[Sentence]:
    """Read a sentence from each line, token/TAG with spaces between; lines that begin with # are comments.

    Raises:
        ValueError: A token has no tag, or an unknown one.
    """
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    rows = [[token.rpartition("/")[::2] for token in line.split()] for line in lines]
    if wrong := [row for row in rows for word, tag in row if not word or tag not in TAGS]:
        raise ValueError(f"{path}: expected token/TAG, not {wrong[0]}")
    return [Sentence(*zip(*((word, True, tag) for word, tag in row), strict=True)) for row in rows]


def _lines(path: Path) -> Iterator[tuple[str, list[str] | None]]:
    """Yield (FILE:LINE, the ten columns) for each word, and (FILE:LINE, None) before, between and after sentences."""
    yield f"{path}:0", None
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            columns = line.rstrip("\n").split("\t")
            if line.isspace():
                yield f"{path}:{number}", None
            elif not line.startswith("#"):
                if len(columns) != 10:
                    raise ValueError(f"{path}:{number}: expected 10 columns of CoNLL-U, not {len(columns)}")
                yield f"{path}:{number}", columns
    yield f"{path}:end", None


@dataclass(frozen=True)
class TaggingScores:
    """The accuracy over all tokens, and precision and recall of proper nouns."""

    tokens: int
    accuracy: float
    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        return 2 * self.precision * self.recall / max(self.precision + self.recall, 1e-9)

    def __str__(self) -> str:
        return (
            f"UPOS {self.accuracy:.2%}, PROPN F1 {self.f1:.2%} (P {self.precision:.2%}, R {self.recall:.2%})"
            f" on {self.tokens:,} tokens"
        )


Tag = Callable[[Sequence[Sentence]], list[list[str]]]


def score(tag: Tag, sentences: Sequence[Sentence]) -> TaggingScores:
    """Measure how well `tag` finds the tags of sentences, given their tokens."""
    pairs = [
        (found, right)
        for tags, sentence in zip(tag(sentences), sentences, strict=True)
        for found, right in zip(tags, sentence.tags, strict=True)
    ]
    names = sum(found == right == "PROPN" for found, right in pairs)
    return TaggingScores(
        len(pairs),
        sum(found == right for found, right in pairs) / len(pairs),
        names / max(1, sum(found == "PROPN" for found, _ in pairs)),
        names / max(1, sum(right == "PROPN" for _, right in pairs)),
    )

"""Read sentences without annotation, for the teacher to tag: news, encyclopedia articles and questions.

DIR/KIND is a clone of github.com/dhfbk/KIND: the words of its Wikinews are read, but not its names of people and
places, which are for non-commercial use. DIR/NTREX is a clone of github.com/MicrosoftTranslator/NTREX. DIR/squad-it is
a clone of github.com/crux82/squad-it, of which the test part is read. The latter two are translations.
"""

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import spacy

from clipita_train.tagger.taggers import plain
from clipita_train.tagger.treebank import Sentence

SHORTEST, LONGEST = 3, 80  # limits of a sentence, in words
RUN = 8  # a sentence is left out if it has so many words in a row in common with a judge
UNKNOWN = "X"  # the tag of all words, before a teacher has seen them


def read_texts(folder: Path, judges: Iterable[Sentence]) -> list[Sentence]:
    """Read the different sentences of all three, except those that share `RUN` words in a row with a judge's.

    Args:
        folder: Holds the clones.
        judges: The sentences that the tagger is measured on.

    Raises:
        FileNotFoundError: A file is missing; the message says what to clone.
    """
    judged = {run for sentence in judges for run in _runs(sentence)}
    texts = (*_wikinews(folder / "KIND"), *_ntrex(folder / "NTREX"), *_squad(folder / "squad-it"))
    found = {sentence.words: sentence for sentence in texts if SHORTEST <= len(sentence.words) <= LONGEST}
    return [sentence for sentence in found.values() if judged.isdisjoint(_runs(sentence))]


def _wikinews(clone: Path) -> Iterator[Sentence]:
    """Read a word and its label from each line; a blank line ends a sentence."""
    for part in ("train", "test"):
        text = _file(clone, f"dataset/wikinews_{part}.tsv", "dhfbk/KIND").read_text(encoding="utf-8")
        for block in text.split("\n\n"):
            words = [plain(line.split("\t")[0]) for line in block.splitlines()]
            if words := [word for word in words if word]:
                yield _sentence(words, [not word.endswith("'") for word in words])


def _ntrex(clone: Path) -> Iterator[Sentence]:
    """Read a sentence from each line."""
    file = _file(clone, "NTREX-128/newstest2019-ref.ita.txt", "MicrosoftTranslator/NTREX")
    return _split(file.read_text(encoding="utf-8").splitlines())


def _squad(clone: Path) -> Iterator[Sentence]:
    """Read paragraphs of Wikipedia and questions on them, translated by machine and corrected."""
    file = _file(clone, "SQuAD_it-test.json.gz", "crux82/squad-it")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        articles = json.load(lines)["data"]
    paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
    yield from _split(dict.fromkeys(paragraph["context"] for paragraph in paragraphs))
    yield from _split(dict.fromkeys(asked["question"] for paragraph in paragraphs for asked in paragraph["qas"]))


def _split(texts: Iterable[str]) -> Iterator[Sentence]:
    """Split texts into sentences, at full stops."""
    nlp = spacy.blank("it")
    nlp.add_pipe("sentencizer")
    for doc in nlp.pipe(map(plain, texts)):
        for sentence in doc.sents:
            tokens = [token for token in sentence if not token.is_space]
            yield _sentence([token.text for token in tokens], [bool(token.whitespace_) for token in tokens])


def _sentence(words: Sequence[str], spaces: Sequence[bool]) -> Sentence:
    return Sentence(tuple(words), tuple(spaces), (UNKNOWN,) * len(words))


def _runs(sentence: Sentence) -> Iterator[tuple[str, ...]]:
    words = tuple(word.lower() for word in sentence.words)
    return (words[start : start + RUN] for start in range(len(words) - RUN + 1))


def _file(clone: Path, name: str, repository: str) -> Path:
    if not (clone / name).is_file():
        raise FileNotFoundError(f"no {clone / name}: git clone https://github.com/{repository} {clone}")
    return clone / name

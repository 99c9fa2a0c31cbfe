"""Read Italian words of things that can be photographed from open WordNets, to train the text projection on.

The files are `data.noun` of Princeton WordNet 3.0 and the Italian tables of the Open Multilingual Wordnet
(github.com/omwn/omw-data, `wns/{ita,iwn,wikt}`), which share synset numbers.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from clipita_train.data.concepts import without_article

# Numbers of the WordNet lexicographer files that hold visible things: animal, artifact, body, food, location, natural
# object, person, phenomenon, plant, substance.
VISIBLE = {5, 6, 8, 13, 15, 17, 18, 19, 20, 27}
ITALIAN_TABLES = ("ita/wn-data-ita.tab", "iwn/wn-data-ita.tab", "wikt/wn-wikt-ita.tab")


@dataclass(frozen=True)
class Synset:
    """One WordNet meaning: its Italian words, up to two English ones, and the first clause of its definition."""

    id: str  # "n02121620"
    italian: tuple[str, ...]
    english: tuple[str, ...]
    definition: str


def read_synsets(nouns: Path, omw: Path, *, without: Collection[str]) -> list[Synset]:
    """Read the meanings of visible things that have an Italian word.

    Args:
        nouns: The file `data.noun` of WordNet 3.0.
        omw: The folder `wns` of omw-data.
        without: Phrases that training must not see, compared without article and case.

    Raises:
        FileNotFoundError: A table is missing; the message says where to get it.
        ValueError: `nouns` is not from WordNet 3.0, whose synset numbers the tables use.
    """
    barred = {without_article(phrase).lower() for phrase in without}

    def allowed(words: Iterable[str]) -> tuple[str, ...]:
        return tuple(word for word in words if without_article(word).lower() not in barred)

    italian: dict[str, set[str]] = defaultdict(set)
    for table in ITALIAN_TABLES:
        if not (omw / table).is_file():
            raise FileNotFoundError(f"no table {omw / table}: expected the folder wns of github.com/omwn/omw-data")
        for line in (omw / table).read_text("utf-8").splitlines():
            cells = line.split("\t")
            if len(cells) >= 3 and cells[0].endswith("-n") and "lemma" in cells[1] and not _is_gap(cells[2]):
                italian[cells[0][:8]].add(cells[2].replace("_", " "))
    synsets = []
    for number, words, definition in _visible_nouns(nouns):
        if names := allowed(sorted(italian.get(number, ()))):
            # English words are checked too: "dessert" and "croissant" belong to both languages.
            synsets.append(Synset(f"n{number}", names, allowed(words[:2]), definition))
    return synsets


def _visible_nouns(path: Path) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Yield the number, words and definition of each visible noun.

    Source: the format of WordNet's database files, wndb(5).
    """
    text = path.read_text("utf-8")
    if "WordNet 3.0" not in text[:2000]:
        raise ValueError(f"{path} is not the data.noun of WordNet 3.0: the license at its top does not name it")
    for line in text.splitlines():
        if not line.startswith("  "):  # the lines of the license at the top are indented
            data, definition = line.split("|", 1)
            cells = data.split()
            if int(cells[1]) in VISIBLE:
                count = int(cells[3], 16)
                words = tuple(cells[4 + 2 * i].replace("_", " ") for i in range(count))
                yield cells[0], words, definition.split(";")[0].strip()


def _is_gap(word: str) -> bool:
    return len(word) < 3 or word in ("GAP!", "PSEUDOGAP!")

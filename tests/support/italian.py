"""Italian strings to try tokenizers with, the same at every run: words of the label tables, spelled in every way."""

import random
import unicodedata
from functools import cache

from support import ROOT

_LABELS = ROOT / "training" / "clipita_train" / "data" / "labels"
_FUNCTION_WORDS = ("e", "di", "la", "il", "un", "una", "per", "non", "con", "su", "della", "dell'", "l'", "c'è", "è")
# A cat, a heart with its variation selector, a family joined by U+200D, a flag of two letters, and what NFKC changes.
_EMOJI = ["🐱", "❤\ufe0f", "👩\u200d👩\u200d👧", "🇮🇹", "🙂", "…", "№", "½", "™", "\ufb01", "\uff21", "①"]
_MARKS = [".", ",", "!", "?", ";", ":", " - ", " — ", "«", "»", "“", "”", '"', "(", ")", "/", "_", "#", "@", "%", "’"]
_ACCENTS = str.maketrans({composed: unicodedata.normalize("NFD", composed) for composed in "àèéìòù"})
_APOSTROPHES = str.maketrans({"à": "a'", "è": "e'", "é": "e'", "ò": "o'", "ù": "u'", "ì": "i'", "'": "’"})
_SPACES = ["  ", "\t", "\n", "\u00a0", "\u2009", "\u3000", " \r\n ", "\u200b"]


@cache
def words() -> tuple[str, ...]:
    """Words of the label tables and of every sentence, in the order of the tables."""
    found: dict[str, None] = dict.fromkeys(_FUNCTION_WORDS)
    for table in ("imagenet.tsv", "everyday.tsv", "more.tsv"):
        for line in (_LABELS / table).read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                found |= dict.fromkeys(word for field in line.split("\t")[1:4] for word in field.split())
    return tuple(found)


@cache
def strings(count: int = 2000) -> tuple[str, ...]:
    """Labels, sentences and paragraphs with accents (composed and not), apostrophes, emoji, capitals and odd spaces."""
    chance = random.Random(7)
    return tuple(_string(chance, index) for index in range(count))


def _string(chance: random.Random, index: int) -> str:
    length = 500 if index % 200 == 0 else chance.choice((1, 2, 3, 5, 8, 13, 30))
    parts = chance.choices(words(), k=length)
    for place in range(length):
        match chance.randrange(12):
            case 0:
                parts[place] = parts[place].upper()
            case 1:
                parts[place] = parts[place].capitalize()
            case 2:
                parts[place] += chance.choice(_MARKS)
            case 3:
                parts[place] = chance.choice(_MARKS) + parts[place]
            case 4:
                parts[place] = str(chance.randrange(100_000))
            case 5:
                parts[place] += chance.choice(("", " ")) + chance.choice(_EMOJI)
            case _:
                pass
    text = " ".join(parts)
    match chance.randrange(10):
        case 0:
            text = text.upper()
        case 1:
            text = text.translate(_ACCENTS)
        case 2:
            text = text.translate(_APOSTROPHES)
        case 3:
            text = "".join(chance.choice(_SPACES) if letter == " " else letter for letter in text)
        case 4:
            text = chance.choice(_SPACES) + text + chance.choice(_SPACES)
        case _:
            pass
    return text

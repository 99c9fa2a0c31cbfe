"""Describe captions by their text: each function computes one column, with a value for each caption. None drops any."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

_WORD = re.compile(r"[^\W\d_]+")
_MAIL = re.compile(r"[\w.+-]+@(?:[\w-]+\.)+[a-z]{2,}\b", re.IGNORECASE)
# Abroad: a plus sign and 8 to 15 digits (E.164). In Italy: mobile numbers are 3 and nine digits, others 0 and 8 to 10.
# Full stops do not separate digits here, since in Italian they separate thousands and the parts of dates.
_PHONE = re.compile(r"(?<![\w.,+])(?:\+\d(?:[ /-]?\d){7,14}|3\d{2}(?:[ /-]?\d){7}|0\d(?:[ /-]?\d){7,9})(?![\d]|[.,]\d)")
_FILE_NAME = re.compile(
    r"(?:file:|immagine:)?\s*[^/\\]*\.(?:jpe?g|png|gif|webp|tiff?|svg|bmp)"
    r"|(?:img|dsc[nf]?|dscf|pict?|image|screenshot|schermata|foto|photo|immagine)?[\s_-]*\(?\d[\d\s_.-]*\)?",
    re.IGNORECASE,
)
_BOILERPLATE = re.compile(
    r"\b(?:clicca(?:re)? (?:qui|per|sull)|(?:immagine|foto) (?:non disponibile|di repertorio|di copertina|in evidenza)"
    r"|leggi (?:tutto|di più|anche)|tutti i diritti riservati|senza titolo|nessuna descrizione"
    r"|click (?:here|to|for)|all rights reserved|stock (?:photo|image|vector)s?|royalty[- ]free|shutterstock"
    r"|getty images|image not (?:found|available)|no description|untitled)\b",
    re.IGNORECASE,
)


def characters(captions: Sequence[str]) -> list[int]:
    """Count the characters of each caption, without spaces around it."""
    return [len(caption.strip()) for caption in captions]


def words(captions: Sequence[str]) -> list[int]:
    """Count the runs of letters in each caption."""
    return [len(_WORD.findall(caption)) for caption in captions]


def letter_share(captions: Sequence[str]) -> list[float]:
    """Return the share of letters among the characters that are not spaces; 0 for a blank caption."""
    return [_share(caption) for caption in captions]


def file_name(captions: Sequence[str]) -> list[bool]:
    """Return whether a caption is a file name, or what a camera or editor names files: "IMG_2041.JPG", "foto 3"."""
    return [_FILE_NAME.fullmatch(caption.strip()) is not None for caption in captions]


def boilerplate(captions: Sequence[str]) -> list[bool]:
    """Return whether a caption has words that web pages put beside any image, such as "Clicca per ingrandire"."""
    return [_BOILERPLATE.search(caption) is not None for caption in captions]


def personal_data(captions: Sequence[str]) -> list[str]:
    """Return the kinds of personal data that a caption seems to have: "mail", "phone", "mail,phone" or ""."""
    kinds = {"mail": _MAIL, "phone": _PHONE}
    return [",".join(kind for kind, pattern in kinds.items() if pattern.search(caption)) for caption in captions]


def language(captions: Sequence[str]) -> list[tuple[str, float]]:
    """Return the likeliest language (ISO 639-1) and its probability by py3langid; ("", 0) where there are no letters.

    Short captions and names are uncertain: "Roberto Baggio nel 1994" is taken for Italian.
    """
    return [_language(caption) if _WORD.search(caption) else ("", 0.0) for caption in captions]


def _language(caption: str) -> tuple[str, float]:
    # The model hardly knows capitals: it took 2 of the 26 captions in capitals in validated MSCOCO-IT for Italian.
    code, probability = _identifier().classify(caption.lower() if caption.isupper() else caption)
    return code, float(probability)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_pickled_model(MODEL_FILE, norm_probs=True)


def _share(caption: str) -> float:
    solid = "".join(caption.split())
    return sum(map(str.isalpha, solid)) / len(solid) if solid else 0.0

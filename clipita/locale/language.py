"""Choose the language of the command `clipita`, and look its phrases up.

Only the command line chooses a language: `CLIPITA_LANG`, or the locale. Whoever imports clipita gets English, and so
does what programs read whatever the language is: JSON, CSV, all files, and the text of exceptions.
"""

import contextlib
import gettext
import os
import string
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

CATALOGUES = Path(__file__).parent
DOMAIN = "clipita"  # the name of the catalogue, and of gettext's domain while Italian is spoken
_NO_DOMAIN = "messages"  # gettext's own, of which there is no catalogue


def chosen_language(environment: Mapping[str, str]) -> str:
    """Return "it" or "en": what CLIPITA_LANG says, else the locale; English where they name any other language.

    Args:
        environment: Variables and their values, such as `os.environ`. The first that is set and not empty decides, of
            CLIPITA_LANG, LC_ALL, LC_MESSAGES and LANG.
    """
    names = ("CLIPITA_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
    found = next((environment[name] for name in names if environment.get(name)), "")
    return "it" if found.lower().replace("-", "_").split("_")[0].split(".")[0] == "it" else "en"


@contextlib.contextmanager
def speaking(language: str) -> Generator[None]:
    """Speak "it" or "en" in this process until the end of the block, click's own messages included.

    gettext, which click asks as well, has one language for the whole process, and takes it from the environment.
    """
    domain, named = gettext.textdomain(), os.environ.get("LANGUAGE")
    gettext.bindtextdomain(DOMAIN, str(CATALOGUES))
    gettext.textdomain(DOMAIN if language == "it" else _NO_DOMAIN)
    os.environ["LANGUAGE"] = language
    try:
        yield
    finally:
        gettext.textdomain(domain)
        os.environ.pop("LANGUAGE", None)
        if named is not None:
            os.environ["LANGUAGE"] = named


def speaks_italian() -> bool:
    """Tell whether Italian is spoken now."""
    return gettext.textdomain() == DOMAIN


def phrase(template: str, /, **values: Any) -> str:
    """Return a phrase in the language that is spoken, with its values.

    Args:
        template: The phrase in English, with fields as `str.format` has them: "{count:,} photographs". It is what the
            catalogue is asked for; one that is not in it stays English.
        values: The value of each field. In Italian, numbers with "," or a fixed number of decimals get Italian marks:
            1.234,5.
    """
    found = gettext.gettext(template) if template and speaks_italian() else template  # of "" gettext gives its head
    return _Filled().vformat(found, (), values) if values else found


def with_marks(number: str) -> str:
    """Return a number as it is written in the language that is spoken, from its English form: 1.234,5 of 1,234.5."""
    return number.translate(str.maketrans(",.", ".,")) if speaks_italian() else number


class _Filled(string.Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        text = super().format_field(value, format_spec)
        return with_marks(text) if format_spec.endswith((",", "f")) else text

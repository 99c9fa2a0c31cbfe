r"""Say in Italian what the library said in English.

Errors are data as well as words: they are kept in indexes, written as JSON and read by programs. So the library writes
them in English, as plain f-strings, and the command line translates them when it prints them: it looks for the template
in the catalogue that the text was made of, and takes the values out of the text. What could be read in two ways stays
English, and so does what is of no template. Templates have the fields of the f-string, by names of their own:

    {path!r} has {size:,} bytes         of        f"{str(path)!r} has {path.stat().st_size:,} bytes"
"""

import dataclasses
import functools
import re
import string
import struct
from typing import NamedTuple

from clipita.locale.language import CATALOGUES, DOMAIN, phrase, speaks_italian, with_marks

_NUMBER = r"[-+]?(?:\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?|inf|nan)"
_QUOTED = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_LITERAL = rf"(?:b?{_QUOTED}|[-+.\w]+|[\[({{<\w].*[\])}}>])"  # what repr() writes
_USERS_WORDS = re.compile(rf"(?<!\w){_QUOTED}(?!\w)", re.DOTALL)
_IMAGE = re.compile(
    rf"(images\[\d+\](?: \({_QUOTED}\))?|{_QUOTED}) (.+)", re.DOTALL
)  # named, and what is wrong with it
_SUGGESTION = r"(?: Did you mean '.*'\?)?"


def recognized(text: str) -> str:
    """Return a message of the library, or of the system, in the language that is spoken.

    Args:
        text: One message in English. Values in it may be messages themselves: "... cannot be read: Permission denied".
    """
    return _read(text).said if speaks_italian() else text


def of_file(path: str, reason: str) -> str:
    """Return the line that says why a file cannot be used, in the language that is spoken.

    Args:
        path: The file.
        reason: The rest of the sentence in English: "is a folder, expected an image file".
    """
    line = f"{path} {reason}"
    return found if (found := recognized(line)) != line else f"{path} {recognized(reason)}"


class _Reading(NamedTuple):
    """One way to read a text.

    Attributes:
        said: The text in Italian; where it is not understood, in English.
        own: How many of its characters were the words of messages, and not values in them.
    """

    said: str
    own: int


@functools.lru_cache(1024)
def _read(text: str) -> _Reading:
    """Return the reading that explains most of a text."""
    if (found := phrase(text)) != text:
        return _Reading(found, len(text))
    readings = [_Reading(text, 0)]
    for template in _templates():
        if all(part in text for part in template.parts):
            reading = template.read(text)
            if reading is None:  # an empty value at the end has left no space
                reading = template.read(f"{text} ")
            if reading is not None:
                readings.append(reading)
    if image := _IMAGE.fullmatch(text):
        rest = _read(image[2])
        readings.append(_Reading(f"{image[1]} {rest.said}", rest.own))
    quoted = [place.span() for place in _USERS_WORDS.finditer(text)]
    for colon in re.finditer(": ", text):
        if any(start < colon.start() < end for start, end in quoted):
            continue
        what, why = _read(text[: colon.start()]), _read(text[colon.end() :])
        if what.own:
            readings.append(_Reading(f"{what.said}: {why.said}", what.own + why.own))
    return max(readings, key=lambda reading: reading.own)


@dataclasses.dataclass(frozen=True)
class _Template:
    """A message of the catalogue that has fields.

    Attributes:
        text: The message in English.
        parts: Its own words, each of which is in a text that is made of it.
        fields: Name of each field: how it is written, which is "number", "literal", "quoted" or "".
        shortest, longest: The pattern of a text made of it, with short and with long values where there is a choice.
    """

    text: str
    parts: tuple[str, ...]
    fields: dict[str, str]
    shortest: str
    longest: str

    def read(self, text: str) -> _Reading | None:
        """Return a text that is made of this message in Italian, or as it is if there are two ways; None of another."""
        short, long = (re.fullmatch(pattern, text, re.DOTALL) for pattern in (self.shortest, self.longest))
        if short is None or long is None:
            return None
        one, other = self._said(short), self._said(long)
        if one.own == other.own:
            return one if one.said == other.said else _Reading(text, one.own)
        return max(one, other, key=lambda reading: reading.own)

    def _said(self, match: re.Match[str]) -> _Reading:
        values = {name: _value(value, self.fields[name]) for name, value in match.groupdict().items()}
        said = _filled(phrase(self.text), {name: value.said for name, value in values.items()})
        own = len(match[0]) - sum(map(len, match.groups())) + sum(value.own for value in values.values())
        return _Reading(said.rstrip(), own)


def _value(value: str, kind: str) -> _Reading:
    match kind:
        case "number":
            return _Reading(with_marks(value), 0)
        case "literal" | "quoted":  # the user's own words
            return _Reading(value, 0)
        case _:
            return _read(value) if value.strip() else _Reading(value, 0)


def _filled(template: str, values: dict[str, str]) -> str:
    pieces = string.Formatter().parse(template)
    return "".join(literal + ("" if name is None else values[name]) for literal, name, _, _ in pieces)


@functools.cache
def _templates() -> tuple[_Template, ...]:
    """Read the messages with fields from the catalogue."""
    return tuple(template for text in _messages() if (template := _template(text)) is not None)


def _template(text: str) -> _Template | None:
    """Return the template that a message is; None of a message without fields, or with braces of its own."""
    try:
        pieces = list(string.Formatter().parse(text))
    except ValueError:
        return None
    fields: dict[str, str] = {}
    patterns = ["", ""]
    for number, (literal, name, spec, conversion) in enumerate(pieces):
        patterns = [pattern + re.escape(literal) for pattern in patterns]
        if name is None:
            continue
        if not name:
            return None
        after = pieces[number + 1][0] if number + 1 < len(pieces) else ""
        is_quoted = literal.endswith("'") and after.startswith("'")
        is_decimal = spec and not spec.endswith("x")
        kind = "number" if is_decimal else "literal" if conversion else "quoted" if is_quoted else ""
        value = {"number": _NUMBER, "literal": _LITERAL}.get(kind, _SUGGESTION if name == "suggestion" else ".*")
        for at, repeat in enumerate((".*?", ".*")):
            patterns[at] += f"(?P={name})" if name in fields else f"(?P<{name}>{value.replace('.*', repeat)})"
        fields[name] = kind
    parts = tuple(literal.rstrip() for literal, *_ in pieces if literal.strip(" .:,'()"))
    return _Template(text, parts, fields, *patterns) if fields and parts else None


def _messages() -> list[str]:
    """Read the messages in English from the compiled catalogue: of the pairs in it, the first halves."""
    content = (CATALOGUES / "it" / "LC_MESSAGES" / f"{DOMAIN}.mo").read_bytes()
    _, _, count, start = struct.unpack_from("<4I", content)
    places = struct.iter_unpack("<2I", content[start : start + 8 * count])
    return [content[place : place + length].partition(b"\0")[0].decode() for length, place in places]

"""Read the license from a model card (README.md): it stands in the lines between its first two "---".

The lines are read one by one, without a YAML parser, in a time that grows no faster than the length of the file.
"""

from collections.abc import Iterator
from pathlib import Path

_MAX_BYTES = 1 << 20  # some cards begin with tables of results that take half of it
_MAX_LICENSE = 200  # characters; the longest identifiers have 40, and the names of custom licenses 100


def license_of(folder: Path) -> str | None:
    """Return the license's identifier on the hub ("gpl-3.0"), or its name if that is "other"; None if it has none."""
    path = folder / "README.md"
    try:
        if not path.is_file():  # a pipe would never end
            return None
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    stated: dict[str, str] = {}
    for key, value in _fields(text.removeprefix("\ufeff").split("\n")):
        stated.setdefault(key, value)
    license = stated.get("license")
    return (stated.get("license_name") or license) if license == "other" else license


def _fields(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the keys of the front matter with their values, or with the first items of lists.

    A license is written in no other way. Without a second "---" there is no front matter.
    """
    if lines[0].rstrip() != "---":
        return
    end = next((number for number, line in enumerate(lines) if number and line.rstrip() == "---"), 0)
    for number in range(1, end):
        key, colon, rest = lines[number].partition(":")
        if not colon or key not in ("license", "license_name"):
            continue
        value = _scalar(rest)
        following = lines[number + 1].strip()
        if not value and number + 1 < end and following.startswith("-"):
            value = _scalar(f" {following[1:]}")
        if value:
            yield key, value


def _scalar(text: str) -> str:
    """Return the value behind a colon, without comment and quotes; "" if it is too long for a license."""
    for place, character in enumerate(text):
        if character == "#" and place and text[place - 1].isspace():
            text = text[:place]
            break
    value = text.strip().strip("[]'\"").strip()
    return value if len(value) <= _MAX_LICENSE else ""

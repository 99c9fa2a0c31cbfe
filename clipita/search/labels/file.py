"""Read a file of labels: a label a line, perhaps with its threshold and with what it is a kind of."""

import os
from pathlib import Path
from typing import NamedTuple

from clipita.errors import ClipitaError
from clipita.text import italian_labels

_READY = ("animals", "food", "newsroom", "heritage", "retail")


class LabelLine(NamedTuple):
    """A label of a file.

    Attributes:
        path: What it is a kind of, the widest first, and at last the label: ("Animali", "Felini", "gatto").
        threshold: The share that it needs; None means the usual one.
    """

    path: tuple[str, ...]
    threshold: float | None

    @property
    def label(self) -> str:
        """The label itself, which photographs are compared with."""
        return self.path[-1]


def read_labels(name: str) -> list[LabelLine]:
    """Return the labels of a text file, or of a ready list.

    Args:
        name: A file of UTF-8: "label", "label<TAB>threshold", "Animali > Felini > gatto"; empty lines and those that
            begin with "#" are left out. Or "animals", "food", "newsroom", "heritage" or "retail".

    Raises:
        ClipitaError: there is no such file or list, or a line cannot be understood.
    """
    if name in _READY and not os.path.exists(name):
        labels: tuple[str, ...] = getattr(italian_labels, name.upper())
        return [LabelLine((label,), None) for label in labels]
    try:
        text = Path(name).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ClipitaError(f"{name!r} is not UTF-8. Save it as UTF-8 text, a label a line.") from None
    except OSError as error:
        raise ClipitaError(
            f"{name!r} cannot be read as a file of labels: {error.strerror}. Give a text file with a label a line, or "
            f"one of {', '.join(_READY)}."
        ) from None
    lines = [
        _line(line, f"{name}, line {number}")
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not lines:
        raise ClipitaError(f"{name!r} holds no label: write one a line.")
    return lines


def _line(line: str, place: str) -> LabelLine:
    names, tab, number = line.strip().partition("\t")
    path = tuple(part.strip() for part in names.split(">"))
    if not all(path):
        raise ClipitaError(f"{place}: {line.strip()!r} has a '>' with nothing on one side, e.g. 'Animali > gatto'.")
    if not tab:
        return LabelLine(path, None)
    try:
        threshold = float(number.strip().replace(",", "."))
    except ValueError:
        threshold = 0.0
    if not 0 < threshold <= 1:
        raise ClipitaError(f"{place}: {number.strip()!r} is no threshold: above 0 and at most 1, e.g. 0.2.")
    return LabelLine(path, threshold)

"""Rows of an image with its captions, from any format, and a tally of rows that could not be read."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """An image with its captions."""

    source: str
    key: str  # unique in its source, and the same in every reading
    image: Path | bytes | str | None  # path, contents or address; None for an evaluation set whose image is not at hand
    captions: tuple[str, ...]
    language: str  # ISO 639-1
    licence: str
    page: str | None = None  # address of a page that shows the image


@dataclass(frozen=True)
class Bad:
    """A row that could not be read.

    Attributes:
        place: Where it is: FILE, or FILE:LINE.
        reason: Why. It names nothing that differs between rows, so that equal reasons can be counted.
    """

    place: str
    reason: str


@dataclass
class Tally:
    """Counts of what readers yield.

    Attributes:
        rows: How many rows were good.
        bad: How many were bad, by reason.
        places: The first places of each reason.
        kept: How many places are kept for each reason.
    """

    rows: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)
    kept: int = 20

    def good(self, items: Iterable[Row | Bad]) -> Iterator[Row]:
        """Yield the good rows among the items, and count the others."""
        for item in items:
            if isinstance(item, Row) and not _is_unicode(item):
                item = Bad(item.key, "a name or a caption that is not Unicode")
            if isinstance(item, Row):
                self.rows += 1
                yield item
                continue
            self.bad[item.reason] += 1
            places = self.places.setdefault(item.reason, [])
            if len(places) < self.kept:
                places.append(_printable(item.place))

    def __str__(self) -> str:
        lines = [f"{self.rows} rows read, {self.bad.total()} bad"]
        for reason, count in self.bad.most_common():
            places = self.places[reason]
            more = ", ..." if count > len(places) else ""
            lines.append(f"{count} x {reason}: {', '.join(places)}{more}")
        return "\n".join(lines)


def _is_unicode(row: Row) -> bool:
    """Return whether the texts of a row can be written to files.

    File names, and escapes in JSON, may contain halves of surrogate pairs, which cannot.
    """
    texts = (row.key, "" if isinstance(row.image, bytes | None) else str(row.image), *row.captions)
    return all(text == _printable(text) for text in texts)


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()

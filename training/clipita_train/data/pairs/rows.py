"""One row of image and captions, whatever it was read from, and what could not be read."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """An image with its captions."""

    source: str
    key: str  # unique in its source, and the same at every reading
    image: Path | bytes | str | None  # a file, its contents, or an address; None: of an evaluation set, not at hand
    captions: tuple[str, ...]
    language: str  # ISO 639-1
    licence: str
    page: str | None = None  # the address of the page that shows the image


@dataclass(frozen=True)
class Bad:
    """What could not be read: where (FILE, or FILE:LINE) and why. The reason has no part that differs by row."""

    place: str
    reason: str


@dataclass
class Tally:
    """Counts what readers yield, and keeps the first bad places of each reason by name."""

    rows: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)
    kept: int = 20

    def good(self, items: Iterable[Row | Bad]) -> Iterator[Row]:
        """The rows among the items; the others are counted."""
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
    """Names of files, and escapes in JSON, may have halves of surrogate pairs, which no file can be written with."""
    texts = (row.key, "" if isinstance(row.image, bytes | None) else str(row.image), *row.captions)
    return all(text == _printable(text) for text in texts)


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()

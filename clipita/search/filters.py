"""Define `Filter`: which photographs of an archive a question is about."""

import datetime
from typing import NamedTuple


class Filter(NamedTuple):
    """Says which photographs are looked at; by itself all of them.

    Attributes:
        below: Only those in this folder below the photographs' own, or in one below it.
        since: Only those that say that they were taken on that day or later.
        until: Only those that say that they were taken on that day or before.
    """

    below: str | None = None
    since: datetime.date | None = None
    until: datetime.date | None = None

    @property
    def folder(self) -> str | None:
        """`below` as an index writes folders: without "./" and "/" around it."""
        return None if self.below is None else self.below.strip("/").removeprefix("./")

    @property
    def start(self) -> datetime.datetime | None:
        """The moment with which `since` begins."""
        return None if self.since is None else datetime.datetime.combine(self.since, datetime.time())

    @property
    def end(self) -> datetime.datetime | None:
        """The moment with which `until` is over."""
        if self.until is None:
            return None
        return datetime.datetime.combine(self.until + datetime.timedelta(days=1), datetime.time())

    def holds(self, key: str) -> bool:
        """Tell whether a path is in the folder."""
        return not self.folder or key.startswith(f"{self.folder}/")

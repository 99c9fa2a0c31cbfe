"""Hold the archives that a page searches: their indexes, how far they are, and their photographs by number."""

import datetime
import hashlib
import os
import secrets
import stat
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from clipita.errors import ClipitaError
from clipita.search.index import Index, Match
from clipita.search.query import Weighted
from clipita.search.update import Progress

_KEPT_NUMBERS = 100_000  # of photographs that were shown, some 20 MB
Wish: TypeAlias = tuple[str, str]  # ("text", a sentence) or ("photo", a number)


class Shown(NamedTuple):
    """Holds a photograph that was found, with the archive that it is in, and the number that it is asked for by."""

    number: str
    archive: int
    match: Match


class Found(NamedTuple):
    """Holds what a search of several archives found, as `SearchResult` does of one."""

    found: bool
    photos: list[Shown]


class _Stop(Exception):
    """Ends an update that the server need not wait for; what it did is kept."""


class _State(Progress):
    """Hears how far the update of an archive is."""

    def __init__(self, stopped: threading.Event) -> None:
        self.phase, self.total, self.done, self.failed, self.error = "waiting", 0, 0, 0, ""
        self._stopped = stopped

    def start(self, total: int, done: int) -> None:
        """Take the counts at the beginning."""
        self.phase, self.total, self.done = "growing", total, done

    def advance(self, count: int) -> None:
        """Count, and stop the update if the server ends."""
        self.done += count
        if self._stopped.is_set():
            raise _Stop

    def fail(self, key: str, reason: str) -> None:
        """Count a file that cannot be read."""
        self.failed += 1


class Archives:
    """The archives of a server. Threads may share it.

    Args:
        indexes: One for each folder, of one model.
    """

    def __init__(self, indexes: Sequence[Index]) -> None:
        self._indexes = list(indexes)
        self._stopped = threading.Event()
        self._states = [_State(self._stopped) for _ in indexes]
        self._secret = secrets.token_bytes(16)
        self._numbers: OrderedDict[str, tuple[int, str]] = OrderedDict()
        self._lock = threading.Lock()
        self._updating = threading.Thread(target=self._update, name="clipita-update", daemon=True)

    def start(self) -> None:
        """Begin to bring all of them up to date, one after the other."""
        self._updating.start()

    def stop(self) -> None:
        """Stop an update after the picture in work, and wait for its end."""
        self._stopped.set()
        if self._updating.is_alive():
            self._updating.join()

    def __len__(self) -> int:
        return len(self._indexes)

    def status(self) -> list[dict[str, object]]:
        """Return for each archive its name, its size, and how far its update is."""
        return [
            {
                "name": index.photos.resolve().name.encode("utf-8", "replace").decode(),
                "photos": len(index) if index.exists else 0,
                "phase": state.phase,
                "total": state.total,
                "done": state.done,
                "failed": state.failed,
                "error": state.error,
            }
            for index, state in zip(self._indexes, self._states, strict=True)
        ]

    def search(
        self,
        wanted: Wish,
        *,
        more: Sequence[Wish] = (),
        less: Sequence[Wish] = (),
        count: int = 60,
        archive: int | None = None,
        since: datetime.date | None = None,
        until: datetime.date | None = None,
        show_all: bool = False,
    ) -> Found:
        """Search one archive or all, as `Index.search` and `Index.similar` do.

        Raises:
            ClipitaError: A photograph is asked for that was not shown, or there is no such archive.
            TextError, ImageError: A sentence or a photograph cannot be used.
        """
        if archive is not None and not 0 <= archive < len(self._indexes):
            raise ClipitaError(f"there is no archive {archive}: they are 0 to {len(self._indexes) - 1}.")
        kind, value = wanted
        plus, minus = [self._weighted(wish) for wish in more], [self._weighted(wish) for wish in less]
        found = False
        shown: list[Shown] = []
        for number, index in enumerate(self._indexes):
            if not index.exists or (archive is not None and number != archive):
                continue
            chosen = {"more": plus, "less": minus, "count": count, "since": since, "until": until}
            if kind == "photo":
                result = index.similar(self.path_of(value), **chosen)  # pyright: ignore[reportArgumentType]
            else:
                result = index.search(value, show_all=show_all, **chosen)  # pyright: ignore[reportArgumentType]
            found = found or result.found
            shown += [Shown(self._number(number, match.path), number, match) for match in result.matches]
        shown.sort(key=lambda photo: -photo.match.score)
        return Found(found, shown[:count])

    def path_of(self, number: str) -> Path:
        """Return the file of a photograph that was shown: a plain file inside its archive, whatever links say.

        Raises:
            ClipitaError: No photograph of that number was shown, or it is there no more.
        """
        with self._lock:
            place = self._numbers.get(number)
        if place is None:
            raise ClipitaError("no photograph of that number was shown. Search again.")
        root = self._indexes[place[0]].photos.resolve()
        try:
            path = (root / place[1]).resolve(strict=True)
            is_plain = stat.S_ISREG(os.stat(path, follow_symlinks=False).st_mode)
        except (OSError, ValueError, RuntimeError):
            is_plain, path = False, root
        if not is_plain or not path.is_relative_to(root):
            raise ClipitaError("the photograph is no longer in its archive. Search again.")
        return path

    def _weighted(self, wish: Wish) -> Weighted:
        kind, value = wish
        return self.path_of(value) if kind == "photo" else value

    def _number(self, archive: int, key: str) -> str:
        """Return the number of a photograph, which says nothing about its path."""
        text = archive.to_bytes(4) + os.fsencode(key)
        number = hashlib.blake2b(text, digest_size=12, key=self._secret).hexdigest()
        with self._lock:
            self._numbers[number] = archive, key
            self._numbers.move_to_end(number)
            while len(self._numbers) > _KEPT_NUMBERS:
                self._numbers.popitem(last=False)
        return number

    def _update(self) -> None:
        for index, state in zip(self._indexes, self._states, strict=True):
            try:
                index.update(progress=state)
                state.phase = "ready"
            except _Stop:
                return
            except Exception as error:  # the others go on; what the index held before can be searched
                state.phase = "failed"
                state.error = str(error) if isinstance(error, ClipitaError) else type(error).__name__

"""Keep an index on disk: a SQLite file of rows, which are the truth, and one file of vectors that grows at its end.

A photograph's row points to a content: what the bytes of one or several files hold, known by their hash. The vector of
content 7 is row 7 of the matrix. So a file that is moved keeps its vector, and copies share one. Vectors are written
before the rows that point to them: whatever stops a process, rows point to nothing that is not there, and vectors that
no row knows of are written over.
"""

import contextlib
import datetime
import errno
import functools
import os
import sqlite3
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clipita.errors import CheckpointError, ClipitaError
from clipita.images.photo_files import Stamp
from clipita.search.cosines import FloatVectors, HalfVectors
from clipita.system.files import replacing

ROWS = "index.sqlite"
_BACKGROUND = "background.f16"  # of a model that is not inside the package
_FORMAT = "2"
_WAIT_SECONDS = 30.0  # of a reader for a writer's commit, and the other way round: each takes milliseconds
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_EPOCH = datetime.datetime(1970, 1, 1)

# Photographs lie in the order of their contents, so that those that a search found are read at once. Folders have a
# table of their own, and photographs no second index, which of 100,000 would take 6 MB more.
_SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE folders (id INTEGER PRIMARY KEY, path NOT NULL UNIQUE);
CREATE TABLE contents (
    position INTEGER PRIMARY KEY, hash BLOB NOT NULL, taken INTEGER, width INTEGER, height INTEGER
);
CREATE TABLE photos (
    content INTEGER NOT NULL, folder INTEGER NOT NULL, name NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, PRIMARY KEY (content, folder, name)
) WITHOUT ROWID;
CREATE TABLE failures (
    folder INTEGER NOT NULL, name NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (folder, name)
) WITHOUT ROWID;
"""


class Row(NamedTuple):
    """Holds what is known of one file.

    Attributes:
        stamp: Its size and time when it was read.
        content: The position of its vector; None if it cannot be read.
        failed: Why it cannot; None if it can.
    """

    stamp: Stamp
    content: int | None
    failed: str | None


class Content(NamedTuple):
    """Holds what is known of a picture, which one or several files hold.

    Attributes:
        hash: BLAKE2b of the bytes, 16 bytes.
        vector: (E,) float32 of unit norm.
        taken: When the photograph was taken, by the camera's clock; None if it does not say.
        width: In pixels, upright; None if it is not known.
        height: Likewise.
    """

    hash: bytes
    vector: FloatVectors
    taken: datetime.datetime | None = None
    width: int | None = None
    height: int | None = None


class Photo(NamedTuple):
    """A file that an index holds, for those that show it.

    Attributes:
        key: Its path below the folder of photographs, with "/" between the parts; bytes that are not UTF-8 are
            surrogates in it, as `os.fsdecode` makes them.
        content: The position of its vector.
        taken: When it was taken, or None.
        width: In pixels, or None.
        height: Likewise.
    """

    key: str
    content: int
    taken: datetime.datetime | None
    width: int | None
    height: int | None


class Store:
    """The files of one index. Threads and processes may read it while one writes.

    Attributes:
        folder: Where the files are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, folder: Path, settings: dict[str, str]) -> "Store":
        """Make an empty index; it appears whole or not at all.

        Args:
            folder: Is made if it is not there; its own files alone are written to.
            settings: What `settings` returns from now on.

        Raises:
            ClipitaError: it cannot be written.
        """
        store = cls(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(folder / ROWS) as part:
                with contextlib.closing(sqlite3.connect(part)) as rows, rows:
                    rows.executescript(_SCHEMA)
                    values = {**settings, "format": _FORMAT, "vectors": "vectors.1.f16", "changes": "0"}
                    rows.executemany("INSERT INTO settings VALUES (?, ?)", values.items())
                (folder / "vectors.1.f16").write_bytes(b"")
        except (OSError, sqlite3.Error) as error:
            raise cannot_write(folder, error) from error
        return store

    def exists(self) -> bool:
        """Tell whether there is an index in the folder."""
        return (self.folder / ROWS).exists()

    def settings(self) -> dict[str, str]:
        """Return what the index was made with, and "changes", a number that grows with every change.

        Raises:
            CheckpointError: it is damaged, or of a newer version.
        """
        with self._reading() as rows:
            values = dict(rows.execute("SELECT name, value FROM settings"))
        if values.get("format") != _FORMAT:
            raise CheckpointError(
                f"the index {str(self.folder)!r} has format {values.get('format')}, and this version of clipita reads "
                f"{_FORMAT}. Use the version that made it, or delete the folder and index again."
            )
        return values

    def rows(self) -> dict[str, Row]:
        """Return what is known of every file, under its path."""
        query = (
            "SELECT path, name, size, mtime_ns, content, NULL FROM photos JOIN folders ON id = folder UNION ALL "
            "SELECT path, name, size, mtime_ns, NULL, reason FROM failures JOIN folders ON id = folder"
        )
        with self._reading() as rows:
            return {
                _key(folder, name): Row(Stamp(size, mtime_ns), content, failed)
                for folder, name, size, mtime_ns, content, failed in rows.execute(query)
            }

    def hashes(self) -> dict[bytes, int]:
        """Return the position of every content, under its hash; also of those that no file holds any more."""
        with self._reading() as rows:
            return dict(rows.execute("SELECT hash, position FROM contents"))

    def positions(
        self,
        *,
        below: str | None = None,
        since: datetime.datetime | None = None,
        until: datetime.datetime | None = None,
    ) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the positions of the contents that files hold, ascending.

        Args:
            below: Only of files in this folder, or in one below it.
            since: Only of photographs that say that they were taken then or later.
            until: Only of those that say that they were taken before.
        """
        where, values = list[str](), list[object]()
        if since is not None or until is not None:
            where.append("c.taken >= ? AND c.taken < ?")
            values += [_seconds(since or datetime.datetime.min), _seconds(until or datetime.datetime.max)]
        table = "photos p JOIN contents c ON c.position = p.content" if where else "photos p"
        with self._reading() as rows:
            if below is not None:
                inside = [id for id, path in rows.execute("SELECT id, path FROM folders") if _is_below(path, below)]
                where.append(f"p.folder IN ({','.join(map(str, inside))})")
            if not where:
                counts = (
                    "SELECT count(DISTINCT content), (SELECT coalesce(max(position) + 1, 0) FROM contents) FROM photos"
                )
                ((used, count),) = rows.execute(counts)
                if used == count:  # as is usual: 100,000 numbers need not be read one by one
                    return np.arange(count, dtype=np.int64)
            query = f"SELECT DISTINCT p.content FROM {table} WHERE {' AND '.join(where) or 'TRUE'}"
            found = np.fromiter((position for (position,) in rows.execute(query, values)), np.int64)
        found.sort()
        return found

    def photos(self, positions: Iterable[int] | None = None) -> list[Photo]:
        """Return the files that hold these contents, or all that hold any, sorted by their paths."""
        query = (
            "SELECT f.path, p.name, p.content, c.taken, c.width, c.height FROM photos p "
            "JOIN folders f ON f.id = p.folder JOIN contents c ON c.position = p.content"
        )
        if positions is not None:
            query += f" WHERE p.content IN ({','.join(str(int(position)) for position in positions)})"
        with self._reading() as rows:
            found = [
                Photo(_key(folder, name), content, None if taken is None else _date(taken), width, height)
                for folder, name, content, taken, width, height in rows.execute(query)
            ]
        return sorted(found, key=lambda photo: photo.key)

    def vectors(self) -> HalfVectors:
        """Return the matrix (N, E) of the contents' vectors, mapped from its file and not to be changed.

        Raises:
            CheckpointError: the file is missing or too short.
        """
        for last_try in (False, True):
            settings = self.settings()
            with self._reading() as rows:
                ((count,),) = rows.execute("SELECT coalesce(max(position) + 1, 0) FROM contents")
            width = int(settings["width"])
            if count == 0:
                return np.empty((0, width), np.float16)
            path = self.folder / settings["vectors"]
            try:
                return np.memmap(path, np.dtype("<f2"), "r", shape=(count, width))
            except FileNotFoundError:  # moved together in this moment
                if last_try:
                    raise _damaged(self.folder, f"{path.name} is missing") from None
            except (OSError, ValueError) as error:
                raise _damaged(self.folder, f"{path.name}: {error}") from error
        raise AssertionError

    def background(self, count: int, width: int) -> FloatVectors | None:
        """Return the vectors (count, width) that `keep_background` kept; None if there are none of that shape."""
        try:
            kept = np.fromfile(self.folder / _BACKGROUND, "<f2")
        except OSError:
            return None
        return kept.reshape(count, width).astype(np.float32) if kept.size == count * width else None

    def keep_background(self, vectors: FloatVectors) -> None:
        """Keep the vectors of phrases; where nothing can be written they are made again the next time."""
        with contextlib.suppress(OSError), replacing(self.folder / _BACKGROUND) as part:
            part.write_bytes(vectors.astype("<f2").tobytes())

    @contextlib.contextmanager
    def writing(self) -> Generator["Writer"]:
        """Give the one writer that an index may have at a time.

        Raises:
            ClipitaError: another process writes to it, or it cannot be written to.
        """
        import filelock

        lock = filelock.FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ClipitaError(
                f"the index {str(self.folder)!r} is being updated by another process. Wait for its end; until then "
                "it can be searched."
            ) from None
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        try:
            with contextlib.closing(self._connect(write=True)) as rows:
                yield Writer(self, rows)
        except (OSError, sqlite3.Error) as error:
            raise cannot_write(self.folder, error) from error
        finally:
            lock.release()

    @contextlib.contextmanager
    def _reading(self) -> Generator[sqlite3.Connection]:
        if not self.exists():
            raise ClipitaError(f"there is no index in {str(self.folder)!r}. Make one first: clipita index FOLDER")
        try:
            with contextlib.closing(self._connect(write=False)) as rows:
                yield rows
        except sqlite3.Error as error:
            raise _damaged(self.folder, str(error)) from error

    def _connect(self, *, write: bool) -> sqlite3.Connection:
        uri = (self.folder / ROWS).absolute().as_uri()
        rows = sqlite3.connect(f"{uri}?mode={'rw' if write else 'ro'}", uri=True, timeout=_WAIT_SECONDS)
        try:
            rows.execute("PRAGMA trusted_schema = OFF")
            if not write:
                try:
                    rows.execute("SELECT 1 FROM settings").fetchone()
                except sqlite3.OperationalError:
                    if os.access(self.folder, os.W_OK):
                        raise
                    # On a medium that nobody can write to, no lock can be taken, and none is needed.
                    rows.close()
                    rows = sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True)
            return rows
        except BaseException:
            rows.close()
            raise


class Writer:
    """Changes an index; each `commit` makes what came before it last, whole."""

    def __init__(self, store: Store, rows: sqlite3.Connection) -> None:
        self._store, self._rows = store, rows
        settings = store.settings()
        self._width, self._vectors = int(settings["width"]), store.folder / settings["vectors"]
        ((self._count,),) = rows.execute("SELECT coalesce(max(position) + 1, 0) FROM contents")
        self._committed = self._count
        self._new: list[FloatVectors] = []
        self._folders: dict[str, int] = {_text(path): id for id, path in rows.execute("SELECT id, path FROM folders")}

    def add(self, content: Content) -> int:
        """Take a content, and return its position."""
        taken = None if content.taken is None else _seconds(content.taken)
        values = (self._count, content.hash, taken, content.width, content.height)
        self._rows.execute("INSERT INTO contents VALUES (?, ?, ?, ?, ?)", values)
        self._new.append(content.vector)
        self._count += 1
        return self._count - 1

    @functools.cached_property
    def rows(self) -> dict[str, Row]:
        """Holds what is known of every file, under its path, as it will be after the next `commit`."""
        return self._store.rows()

    def put(self, key: str, row: Row) -> None:
        """Take what is known of a file in place of what was."""
        self.remove([key])
        folder, name = self._place(key)
        if row.content is None:
            values = (folder, _stored(name), row.stamp.size, row.stamp.mtime_ns, row.failed)
            self._rows.execute("INSERT INTO failures VALUES (?, ?, ?, ?, ?)", values)
        else:
            values = (row.content, folder, _stored(name), row.stamp.size, row.stamp.mtime_ns)
            self._rows.execute("INSERT INTO photos VALUES (?, ?, ?, ?, ?)", values)
        self.rows[key] = row

    def remove(self, keys: Iterable[str]) -> None:
        """Forget files; what they held stays for when they come back, until `compact`."""
        for key in keys:
            before = self.rows.pop(key, None)
            if before is None:
                continue
            folder, name = self._place(key)
            if before.content is None:
                self._rows.execute("DELETE FROM failures WHERE folder = ? AND name = ?", (folder, _stored(name)))
            else:
                found = (before.content, folder, _stored(name))
                self._rows.execute("DELETE FROM photos WHERE content = ? AND folder = ? AND name = ?", found)

    def set(self, name: str, value: str) -> None:
        """Change a setting."""
        self._rows.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    def commit(self) -> None:
        """Make all that was taken since the last commit last, or nothing of it.

        Raises:
            OSError, sqlite3.Error: the disk is full, or cannot be written to; the index is as it was.
        """
        try:
            if self._new:
                with self._vectors.open("r+b") as file:
                    file.seek(self._committed * self._width * 2)
                    file.write(np.array(self._new, "<f2").tobytes())
                    file.flush()
                    os.fsync(file.fileno())
            self._rows.execute("UPDATE settings SET value = value + 1 WHERE name = 'changes'")
            self._rows.commit()
        except (OSError, sqlite3.Error):
            self._rows.rollback()
            self._count = self._committed
            raise
        finally:
            self._new = []
        self._committed = self._count

    def compact(self, *, least: int = 4096) -> None:
        """Drop the contents that no file holds, if they are more than half of all, and at least so many."""
        ((used,),) = self._rows.execute("SELECT count(DISTINCT content) FROM photos")
        if self._count - used < max(least, self._count / 2):
            return
        kept = self._store.positions()
        old = self._vectors
        number = int(old.name.split(".")[1]) + 1
        new = old.with_name(f"vectors.{number}.f16")
        matrix = self._store.vectors()
        with new.open("wb") as file:
            for start in range(0, len(kept), 65536):
                file.write(matrix[kept[start : start + 65536]].tobytes())
            file.flush()
            os.fsync(file.fileno())
        del matrix
        try:
            self._rows.execute("CREATE TEMP TABLE moved (old INTEGER PRIMARY KEY, new INTEGER)")
            self._rows.executemany("INSERT INTO moved VALUES (?, ?)", zip(kept.tolist(), range(len(kept)), strict=True))
            self._rows.execute("DELETE FROM contents WHERE position NOT IN (SELECT old FROM moved)")
            # By way of numbers below 0, so that no position is taken twice at any moment.
            self._rows.execute("UPDATE contents SET position = -1 - (SELECT new FROM moved WHERE old = position)")
            self._rows.execute("UPDATE contents SET position = -1 - position")
            self._rows.execute("UPDATE photos SET content = (SELECT new FROM moved WHERE old = content)")
            self.set("vectors", new.name)
            self._vectors, self._count, self._committed = new, len(kept), len(kept)
            self.commit()
        except BaseException:
            self._rows.rollback()
            with contextlib.suppress(OSError):
                new.unlink()
            raise
        self._rows.execute("VACUUM")
        with contextlib.suppress(OSError):  # Windows keeps what another process has open
            old.unlink()

    def _place(self, key: str) -> tuple[int, str]:
        folder, _, name = key.rpartition("/")
        if folder not in self._folders:
            self._folders[folder] = len(self._folders) + 1
            self._rows.execute("INSERT INTO folders VALUES (?, ?)", (self._folders[folder], _stored(folder)))
        return self._folders[folder], name


def cannot_write(folder: Path, error: Exception) -> ClipitaError:
    """Return the error that says that an index cannot be written, why, and what to do."""
    full = (isinstance(error, OSError) and error.errno in _NO_ROOM) or "full" in str(error)
    advice = (
        "Make room there and give the same command again: what was done is kept."
        if full
        else "Keep the index elsewhere: --index PLACE, in Python index=PLACE."
    )
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ClipitaError(f"the index {str(folder)!r} cannot be written: {reason}. {advice}")


def _damaged(folder: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"the index {str(folder)!r} cannot be read: {reason}. If this stays so, delete that folder and index again."
    )


def _stored(text: str) -> str | bytes:
    """Return what SQLite keeps of a part of a path: text, or its bytes where they are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return os.fsencode(text)
    return text


def _text(stored: str | bytes) -> str:
    return os.fsdecode(stored) if isinstance(stored, bytes) else stored


def _key(folder: str | bytes, name: str | bytes) -> str:
    return f"{_text(folder)}/{_text(name)}" if folder else _text(name)


def _is_below(path: str | bytes, folder: str) -> bool:
    text = _text(path)
    return text == folder or text.startswith(f"{folder}/") or folder == ""


def _seconds(date: datetime.datetime) -> int:
    return (date - _EPOCH) // datetime.timedelta(seconds=1)


def _date(seconds: int) -> datetime.datetime:
    return _EPOCH + datetime.timedelta(seconds=seconds)

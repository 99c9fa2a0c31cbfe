"""Bring an index up to date with its folder of photographs: embed what is new, follow what moved, drop what is gone."""

import contextlib
import dataclasses
import hashlib
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from clipita.errors import ClipitaError, ImageError
from clipita.images.facts import read_facts
from clipita.images.photo_files import PhotoFiles, Stamp, find_photos, readable_suffixes
from clipita.images.pixels import Crop, describe
from clipita.model import Model
from clipita.search.cosines import FloatVectors
from clipita.search.embedding_file import UNKNOWN
from clipita.search.store import Content, Row, Store, Writer

_HASH_BYTES = 16
_COMMIT_SECONDS = 1.0  # between commits of files that need no model; each waits some milliseconds for the disk


@dataclasses.dataclass(frozen=True)
class UpdateSummary:
    """Says what an update did. The first six counts are of files: all photographs that the folder holds or held.

    Attributes:
        added: New paths.
        changed: Paths that hold another picture than before.
        moved: Pictures that are at a new path and no longer at an old one; none was embedded again.
        removed: Paths that are gone, without those that moved.
        unchanged: Paths that hold what they held.
        failed: Those that cannot be read, with the reason; also those of earlier updates, which are tried again only
            when they change.
        embedded: How many pictures went through the model.
        found: What the folder holds, and what was left aside.
    """

    added: int
    changed: int
    moved: int
    removed: int
    unchanged: int
    failed: dict[str, str]
    embedded: int
    found: PhotoFiles


class Progress:
    """Hears how far an update is; a subclass may show it."""

    def start(self, total: int, done: int) -> None:
        """Hear how many files there are, and how many of them need not be read."""

    def advance(self, count: int) -> None:
        """Hear how many more files are done."""

    def fail(self, key: str, reason: str) -> None:
        """Hear of a file that cannot be read."""


class _Todo(NamedTuple):
    key: str
    stamp: Stamp


class _Waiting(NamedTuple):
    """A picture on its way through the model, with all files that hold it."""

    hash: bytes
    files: list[_Todo]


def update(
    store: Store,
    model: Model,
    photos: Path,
    *,
    crop: Crop,
    exclude: Sequence[str],
    batch_size: int,
    progress: Progress,
) -> UpdateSummary:
    """Make an index hold what its folder of photographs holds.

    Whatever stops it, what was committed stays: at most the batch in work is lost, and the next update goes on.

    Args:
        store: The index.
        model: The one that the index was made with.
        photos: The folder.
        crop: As for `Model.encode_image`.
        exclude: As for `find_photos`.
        batch_size: Most images in one run of the tower.
        progress: Hears how far it is.

    Raises:
        ClipitaError: another process updates the index, it cannot be written, or a folder that held photographs holds
            none at all, as one does whose disk is not mounted.
    """
    with store.writing() as writer:
        found = find_photos(photos, exclude=exclude, any_bytes=True)
        known = dict(writer.rows)  # as they are before anything is changed
        _refuse_empty(photos, found, known)
        here = {*found.keys, *found.failed}
        gone = {key for key in known.keys() - here if not found.may_hold(key)}
        todo = [_Todo(key, found.stamps[key]) for key in found.keys if not _is_known(known, key, found.stamps[key])]
        run = _Run(store, writer, model, photos, crop, batch_size, progress, known)
        progress.start(len(here), len(found.keys) - len(todo))
        for key, reason in found.failed.items():
            run.fail(key, reason, None, is_file=key not in found.unseen)
        run.read(todo)
        return run.finish(found, gone)


def hash_of(path: Path) -> bytes:
    """Return the hash of what a file holds, (16,) bytes of BLAKE2b.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.blake2b(digest_size=_HASH_BYTES)
    with path.open("rb", buffering=0) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.digest()


def stamp_of(path: Path) -> Stamp | None:
    """Return the size and time of a file, or None if it is not there."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a null character in the path
        return None
    return Stamp(status.st_size, status.st_mtime_ns)


def content_of(path: Path, digest: bytes, vector: FloatVectors) -> Content:
    """Return what an index keeps of a picture that was embedded, with what the head of its file says."""
    try:
        facts = read_facts(path, str(path))
    except ImageError:  # changed in this very moment
        return Content(digest, vector)
    return Content(digest, vector, facts.taken, facts.width, facts.height)


def _is_known(known: dict[str, Row], key: str, stamp: Stamp) -> bool:
    return key in known and known[key].stamp == stamp


def _refuse_empty(photos: Path, found: PhotoFiles, known: dict[str, Row]) -> None:
    if found.keys or found.failed:
        return
    if known:
        raise ClipitaError(
            f"{str(photos)!r} holds no photograph any more, and its index knows {len(known):,}: is its disk mounted? "
            "If they were deleted, delete the index too."
        )
    raise ClipitaError(
        f"{str(photos)!r} holds no image: no file below it ends in {', '.join(sorted(readable_suffixes()))}. "
        f"{found.describe()}".rstrip()
    )


class _Run:
    def __init__(
        self,
        store: Store,
        writer: Writer,
        model: Model,
        photos: Path,
        crop: Crop,
        batch_size: int,
        progress: Progress,
        known: dict[str, Row],
    ) -> None:
        self._writer, self._model, self._photos = writer, model, photos
        self._crop: Crop = crop
        self._batch_size, self._progress, self._known = batch_size, progress, known
        self._hashes = store.hashes()
        self._waiting: deque[_Waiting] = deque()
        self._by_hash: dict[bytes, _Waiting] = {}
        self._counts: Counter[str] = Counter()
        self._appeared: dict[str, int] = {}  # new paths, with the content of each
        self._failed: dict[str, str] = {}
        self._committed = time.monotonic()

    def read(self, todo: Sequence[_Todo]) -> None:
        """Go through files that are new or were changed: those whose picture is known need no model."""
        with contextlib.closing(
            self._model.iter_encode_image(self._unknown(todo), crop=self._crop, batch_size=self._batch_size)
        ) as results:
            for index, result in enumerate(results):
                waiting = self._waiting.popleft()
                del self._by_hash[waiting.hash]
                if result.embedding is None:
                    name = describe(result.key, index)
                    for file in waiting.files:
                        self.fail(file.key, str(result.error).removeprefix(name).lstrip(), file.stamp)
                else:
                    self._take(waiting, result.embedding)
                if (index + 1) % self._batch_size == 0:
                    self._commit(at_once=True)
        self._commit(at_once=True)

    def _unknown(self, todo: Sequence[_Todo]) -> Iterator[Path]:
        """Yield the files whose picture must go through the model; settle all others."""
        for file in todo:
            path = self._photos / file.key
            try:
                digest = hash_of(path)
            except OSError as error:  # which may pass: no stamp is kept, so that the next update tries again
                self.fail(file.key, f"cannot be read: {error.strerror or error}", None)
                continue
            if digest in self._by_hash:
                self._by_hash[digest].files.append(file)
            elif digest in self._hashes:
                self._settle(file, self._hashes[digest])
                self._commit()
            else:
                self._by_hash[digest] = _Waiting(digest, [file])
                self._waiting.append(self._by_hash[digest])
                yield path

    def _take(self, waiting: _Waiting, embedding: FloatVectors) -> None:
        files = [file for file in waiting.files if self._is_as_it_was(file)]
        if not files:
            return
        position = self._writer.add(content_of(self._photos / files[0].key, waiting.hash, embedding))
        self._hashes[waiting.hash] = position
        self._counts["embedded"] += 1
        for file in files:
            self._settle(file, position)

    def _is_as_it_was(self, file: _Todo) -> bool:
        """Tell whether a file still is what was hashed, so that hash and vector are of one picture."""
        same = stamp_of(self._photos / file.key) == file.stamp
        if not same:
            self.fail(file.key, "was changed while it was read. Give the same command again.", None)
        return same

    def _settle(self, file: _Todo, content: int) -> None:
        before = self._known.get(file.key)
        if before is None or before.failed is not None:
            self._appeared[file.key] = content
        else:
            self._counts["unchanged" if before.content == content else "changed"] += 1
        self._writer.put(file.key, Row(file.stamp, content, None))
        self._progress.advance(1)

    def fail(self, key: str, reason: str, stamp: Stamp | None, *, is_file: bool = True) -> None:
        """Keep why a file cannot be read; without a stamp it is tried again by the next update."""
        self._failed[key] = reason
        if is_file:
            self._writer.put(key, Row(stamp or UNKNOWN, None, reason))
        self._progress.fail(key, reason)
        self._progress.advance(1)

    def _commit(self, *, at_once: bool = False) -> None:
        if at_once or time.monotonic() - self._committed > _COMMIT_SECONDS:
            self._writer.commit()
            self._committed = time.monotonic()

    def finish(self, found: PhotoFiles, gone: set[str]) -> UpdateSummary:
        """Drop what is gone, and count."""
        left = Counter(row.content for key in gone if (row := self._known[key]).content is not None)
        moved = 0
        for content in self._appeared.values():
            if left[content]:
                left[content] -= 1
                moved += 1
        earlier = {
            key: row.failed
            for key, row in self._known.items()
            if row.failed is not None and key not in gone and key not in self._failed and key not in self._appeared
        }
        self._failed |= earlier
        self._writer.remove(gone)
        self._writer.commit()
        self._writer.compact()
        untouched = sum(
            1 for key in found.keys if _is_known(self._known, key, found.stamps[key]) and key not in earlier
        )
        return UpdateSummary(
            added=len(self._appeared) - moved,
            changed=self._counts["changed"],
            moved=moved,
            removed=len(gone) - moved,
            unchanged=self._counts["unchanged"] + untouched,
            failed=dict(sorted(self._failed.items())),
            embedded=self._counts["embedded"],
            found=found,
        )

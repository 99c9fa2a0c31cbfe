"""Embed the photographs of a folder into one file, in a way that a stopped run can be continued.

Results are kept in FILE.partial/, one shard after another, and become FILE at the end. Shards and FILE are put in place
whole: at most the work on one shard is lost, however the run stops. A photograph is known by its path below the folder,
its size and the time of its last change: one that was replaced is embedded again, and one that was deleted is dropped.
"""

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clipita.errors import CheckpointError, ClipitaError
from clipita.images.photo_files import PhotoFiles, Stamp, find_photos, readable_suffixes
from clipita.images.pixels import Crop, describe
from clipita.model import Model
from clipita.search.embedding_file import UNKNOWN, Embeddings, cannot_write, read_embeddings, write_embeddings
from clipita.system.arrays import FloatArray

SHARD_IMAGES = 256

# The file in FILE.partial/ with the path of the run's folder: another folder may have images of the same names.
_SOURCE = "source"


class _Maker(NamedTuple):
    """The maker of a run's embeddings: its fingerprint, the name of its model, and the width of the embeddings."""

    fingerprint: str
    model: str
    width: int


_Known = dict[str, tuple[FloatArray, Stamp]]


@dataclasses.dataclass(frozen=True)
class Summary:
    """The results of a run.

    Attributes:
        total: The number of images in the file.
        new: How many of them were embedded by this run for the first time.
        changed: How many were embedded again, because they were replaced.
        gone: How many were dropped, because they are not in the folder any more.
        failed: The images that could not be embedded, with the reason.
        found: The contents of the folder.
    """

    total: int
    new: int
    changed: int
    gone: int
    failed: dict[str, str]
    found: PhotoFiles


def embed_folder(
    model: Model,
    folder: Path,
    output: Path,
    *,
    crop: Crop = "auto",
    batch_size: int,
    on_start: Callable[[int, int], None],
    on_done: Callable[[int], None],
    on_failed: Callable[[str, str], None],
) -> Summary:
    """Embed the images that are new or changed since `output` was written, and drop those that are gone.

    Args:
        model: The model. Its fingerprint is stored, and a file with the embeddings of another model is refused.
        folder: The folder, searched as by `find_photos`.
        output: A .npz or .parquet file.
        crop: As for `Model.encode_image`. A file with embeddings of another crop is refused as well.
        batch_size: The most images in one run of the tower.
        on_start: Called with the number of all images, and of those that need not be embedded.
        on_done: Called with the number of images that were just done: first 1, so that progress shows soon, then
            batches.
        on_failed: Called with the key of an image that cannot be embedded, and the reason.

    Raises:
        CheckpointError: `output` or the rest of an earlier run is damaged, or of another model or folder.
        ClipitaError: There is no image in `folder`, or `output` cannot be written.
    """
    found = find_photos(folder)
    if not found.keys and not found.failed:
        raise ClipitaError(
            f"{str(folder)!r} holds no image: no file below it ends in {', '.join(sorted(readable_suffixes()))}. "
            f"{found.describe()}".rstrip()
        )
    parts = output.with_name(output.name + ".partial")
    source = os.fsencode(folder.resolve())
    _check_source(parts, source)
    maker = _Maker(fingerprint_of(model, crop), model.name, model.embed_dim)
    known = _read_known(maker, output, parts, found, folder)
    kept = {key: known[key] for key in known.keys() - set(found.keys) if found.may_hold(key)}
    gone = known.keys() - set(found.keys) - set(found.failed) - set(kept)
    todo: list[str] = []
    for key in found.keys:
        stamp = found.stamps[key]
        if key in known and known[key][1] in (UNKNOWN, stamp):
            kept[key] = (known[key][0], stamp)
        else:
            todo.append(key)

    failed = dict(found.failed)
    on_start(len(found.keys) + len(failed), len(found.keys) + len(failed) - len(todo))
    for key, reason in failed.items():
        on_failed(key, reason)
    counted = 0
    with (
        _Shards(parts, source, maker) as shards,
        contextlib.closing(_encoded(model, [folder / key for key in todo], crop, batch_size)) as results,
    ):
        for index, (key, (vector, reason)) in enumerate(zip(todo, results, strict=True)):
            if vector is None:
                failed[key] = reason
                on_failed(key, reason)
            else:
                kept[key] = (vector, found.stamps[key])
                shards.add(key, *kept[key])
            if index % batch_size == 0 or index + 1 == len(todo):  # a batch is complete
                on_done(index + 1 - counted)
                counted = index + 1

    write_embeddings(output, _embeddings(maker, sorted(kept.items())))
    shutil.rmtree(parts, ignore_errors=True)
    done = [key for key in todo if key in kept]
    changed = sum(key in known for key in done)
    return Summary(len(kept), len(done) - changed, changed, len(gone), dict(sorted(failed.items())), found)


def fingerprint_of(model: Model, crop: Crop) -> str:
    """Return the fingerprint of the embeddings that a model makes with this crop."""
    return model.fingerprint if crop == "auto" else f"{model.fingerprint}-{crop}"


def _encoded(
    model: Model, paths: list[Path], crop: Crop, batch_size: int
) -> Generator[tuple[FloatArray | None, str], None, None]:
    """Embed the first image by itself, the others in batches; yield for each its embedding, or None and the reason."""
    for some, size in ((paths[:1], 1), (paths[1:], batch_size)):
        with contextlib.closing(model.iter_encode_image(some, crop=crop, batch_size=size)) as results:
            for index, (path, result) in enumerate(zip(some, results, strict=True)):
                yield result.embedding, str(result.error).removeprefix(describe(path, index)).lstrip()


def _check_source(parts: Path, source: bytes) -> None:
    earlier = parts / _SOURCE
    if earlier.exists() and earlier.read_bytes() != source:
        raise CheckpointError(
            f"{str(parts)!r} is of an unfinished run over {os.fsdecode(earlier.read_bytes())!r}. "
            "Finish that one, use another file, or --overwrite."
        )


def _read_known(maker: _Maker, output: Path, parts: Path, found: PhotoFiles, folder: Path) -> _Known:
    """Read the embeddings of earlier runs: the file, and then the shards of a run that was stopped."""
    known: _Known = {}
    here = {*found.keys, *found.failed}
    for path in ([output] if output.exists() else []) + sorted(parts.glob("*.npz")):
        stored = read_embeddings(path)
        if stored.fingerprint != maker.fingerprint:
            raise CheckpointError(
                f"{str(path)!r} was made by {stored.model!r} with fingerprint {stored.fingerprint}, and now it is "
                f"{maker.fingerprint}: their embeddings do not mix. Use another file, or --overwrite."
            )
        if path == output and stored.keys and not any(key in here or found.may_hold(key) for key in stored.keys):
            raise CheckpointError(
                f"{str(folder)!r} has none of the {len(stored.keys)} images of {str(output)!r}, the first of which is "
                f"{stored.keys[0]!r}: is it the right folder? Use another file, or --overwrite."
            )
        entries = zip(stored.vectors, stored.stamps, strict=True)
        known.update(zip(stored.keys, entries, strict=True))
    return known


def _embeddings(maker: _Maker, entries: Iterable[tuple[str, tuple[FloatArray, Stamp]]]) -> Embeddings:
    listed = list(entries)
    vectors = np.array([vector for _, (vector, _) in listed], np.float32).reshape(len(listed), maker.width)
    stamps = [stamp for _, (_, stamp) in listed]
    return Embeddings([key for key, _ in listed], vectors, maker.fingerprint, maker.model, stamps)


class _Shards:
    """Collect embeddings, and write some hundred of them at a time; the rest is written at the end, even of an error.

    An error shows before the first of them if the folder cannot be written to.
    """

    def __init__(self, folder: Path, source: bytes, maker: _Maker) -> None:
        self._folder, self._source, self._maker = folder, source, maker
        self._entries: list[tuple[str, tuple[FloatArray, Stamp]]] = []

    def __enter__(self) -> "_Shards":
        try:
            self._folder.mkdir(exist_ok=True)
            if not (self._folder / _SOURCE).exists():  # not written again, as a full disk could then lose it
                (self._folder / _SOURCE).write_bytes(self._source)
        except OSError as error:
            self._drop_if_empty()
            raise cannot_write(self._folder, error) from error
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._write()
        finally:
            self._drop_if_empty()

    def add(self, key: str, vector: FloatArray, stamp: Stamp) -> None:
        """Add an embedding, and write a shard if there are enough."""
        self._entries.append((key, (vector, stamp)))  # one step: no interruption leaves a vector without its key
        if len(self._entries) >= SHARD_IMAGES:
            self._write()

    def _write(self) -> None:
        if not self._entries:
            return
        number = len(list(self._folder.glob("*.npz")))
        write_embeddings(self._folder / f"{number:06}.npz", _embeddings(self._maker, self._entries))
        self._entries = []

    def _drop_if_empty(self) -> None:
        if not any(self._folder.glob("*.npz")):
            shutil.rmtree(self._folder, ignore_errors=True)

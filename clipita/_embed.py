"""The images of a folder into one file of embeddings, so that a run that stops can be gone on with.

Results are kept in FILE.partial/, a shard at a time, and become FILE at the end. Shards and FILE are put in place
whole: whatever stops a run, at most the work on one shard is lost. A file is known by its path below the folder.
"""

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipita.errors import CheckpointError, ClipitaError
from clipita.images import describe
from clipita.model import Model

SUFFIXES = frozenset(
    (".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".png", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
)
SHARD_IMAGES = 256

# In FILE.partial/, the folder that the run is over: another may have images of the same names.
_SOURCE = "source"


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """What a file holds.

    Attributes:
        keys: (N,) paths below the folder, with "/" between their parts.
        vectors: (N, E) float32, unit norm.
        fingerprint: Of the model that made them.
        model: Its name.
    """

    keys: list[str]
    vectors: npt.NDArray[np.float32]
    fingerprint: str
    model: str


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a run did: images in the file, how many of them are new, and those that failed, with the reason."""

    total: int
    new: int
    failed: dict[str, str]


def embed_folder(
    model: Model,
    folder: Path,
    output: Path,
    *,
    batch_size: int,
    on_start: Callable[[int, int], None],
    on_result: Callable[[str, str | None], None],
) -> Summary:
    """Embed what is not in `output` yet.

    Args:
        model: Any model; its fingerprint is stored, and another's embeddings are not added to.
        folder: Searched with all folders below it, but for hidden ones.
        output: A .npz or .parquet file.
        batch_size: Most images in one run of the tower.
        on_start: Called with the numbers of images in all, and of those that are done already.
        on_result: Called for each further one with its key, and with the error if it failed.

    Raises:
        CheckpointError: `output` or what was kept of an earlier run is of another model, another folder, or damaged.
        ClipitaError: there is no image in `folder`.
    """
    keys, failed = list_images(folder)
    if not keys and not failed:
        raise ClipitaError(f"{str(folder)!r} holds no image: no file below it ends in {', '.join(sorted(SUFFIXES))}.")
    parts = output.with_name(output.name + ".partial")
    source = os.fsencode(folder.resolve())
    earlier = parts / _SOURCE
    if earlier.exists() and earlier.read_bytes() != source:
        raise CheckpointError(
            f"{str(parts)!r} is of an unfinished run over {os.fsdecode(earlier.read_bytes())!r}. "
            "Finish that one, use another file, or --overwrite."
        )
    known: dict[str, npt.NDArray[np.float32]] = {}
    for path in ([output] if output.exists() else []) + sorted(parts.glob("*.npz")):
        stored = read_embeddings(path)
        if stored.fingerprint != model.fingerprint:
            raise CheckpointError(
                f"{str(path)!r} was made by {stored.model!r} with fingerprint {stored.fingerprint}, and this model has "
                f"{model.fingerprint}: their embeddings do not mix. Use another file, or --overwrite."
            )
        known.update(zip(stored.keys, stored.vectors, strict=True))
        if path == output and (strange := sorted(known.keys() - set(keys))):
            raise CheckpointError(
                f"{str(output)!r} holds images that are not in {str(folder)!r}: {len(strange)}, the first of them "
                f"{strange[0]!r}. Use another file, or --overwrite."
            )

    todo = [key for key in keys if key not in known]
    on_start(len(keys) + len(failed), len(keys) - len(todo))
    for key, reason in failed.items():
        on_result(key, reason)
    new = 0
    with (
        _Shards(parts, source, model) as shards,
        contextlib.closing(model.iter_encode_image((folder / key for key in todo), batch_size=batch_size)) as results,
    ):
        for index, (key, result) in enumerate(zip(todo, results, strict=True)):
            if result.embedding is None:
                failed[key] = str(result.error).removeprefix(describe(folder / key, index)).lstrip()
            else:
                shards.add(key, result.embedding)
                known[key] = result.embedding
                new += 1
            on_result(key, failed.get(key))

    kept = [key for key in keys if key in known]
    vectors = np.array([known[key] for key in kept], np.float32).reshape(len(kept), model.embed_dim)
    write_embeddings(output, Embeddings(kept, vectors, model.fingerprint, model.name))
    shutil.rmtree(parts, ignore_errors=True)
    return Summary(len(kept), new, failed)


def list_images(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The keys of the images below `folder`, sorted, and what could not be looked at, with the reason."""
    keys: list[str] = []
    failed: dict[str, str] = {}

    def on_error(error: OSError) -> None:
        failed[os.path.relpath(error.filename, folder)] = f"cannot be listed: {error.strerror}"

    for place, folders, files in os.walk(folder, onerror=on_error):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.startswith(".") or Path(name).suffix.lower() not in SUFFIXES:
                continue
            key = (Path(place) / name).relative_to(folder).as_posix()
            try:
                key.encode()
            except UnicodeEncodeError:
                failed[ascii(key)] = "has a name that is not valid UTF-8. Rename it."
            else:
                keys.append(key)
    return sorted(keys), failed


class _Shards:
    """Takes embeddings one by one and writes them some hundred at a time; the rest when it is left, however."""

    def __init__(self, folder: Path, source: bytes, model: Model) -> None:
        self._folder, self._source, self._model = folder, source, model
        self._keys: list[str] = []
        self._vectors: list[npt.NDArray[np.float32]] = []

    def __enter__(self) -> "_Shards":
        return self

    def __exit__(self, *_: object) -> None:
        self._write()

    def add(self, key: str, vector: npt.NDArray[np.float32]) -> None:
        self._keys.append(key)
        self._vectors.append(vector)
        if len(self._keys) >= SHARD_IMAGES:
            self._write()

    def _write(self) -> None:
        if not self._keys:
            return
        self._folder.mkdir(exist_ok=True)
        (self._folder / _SOURCE).write_bytes(self._source)
        number = len(list(self._folder.glob("*.npz")))
        shard = Embeddings(self._keys, np.stack(self._vectors), self._model.fingerprint, self._model.name)
        write_embeddings(self._folder / f"{number:06}.npz", shard)
        self._keys, self._vectors = [], []


def write_embeddings(path: Path, embeddings: Embeddings) -> None:
    """Write a .npz (arrays "keys", "embeddings", "fingerprint", "model") or a .parquet (columns "key", "embedding")."""
    with _replacing(path) as part:
        if path.suffix == ".parquet":
            _write_parquet(part, embeddings)
            return
        with part.open("wb") as file:
            np.savez(
                file,
                keys=np.array(embeddings.keys, dtype=np.str_),
                embeddings=embeddings.vectors,
                fingerprint=np.array(embeddings.fingerprint),
                model=np.array(embeddings.model),
            )


def read_embeddings(path: Path) -> Embeddings:
    """Read what `write_embeddings` wrote.

    Raises:
        CheckpointError: it is something else, or damaged.
    """
    try:
        if path.suffix == ".parquet":
            return _read_parquet(path)
        # Opened here: np.load would leave a file open that only looks like a zip archive.
        with path.open("rb") as file, np.load(file) as arrays:
            keys: list[str] = arrays["keys"].tolist()
            return Embeddings(keys, arrays["embeddings"], str(arrays["fingerprint"]), str(arrays["model"]))
    except Exception as error:  # zipfile, NumPy and Arrow each have their own
        raise CheckpointError(
            f"{str(path)!r} exists and is no file of embeddings, or a damaged one. Use another file, or --overwrite."
        ) from error


def _write_parquet(path: Path, embeddings: Embeddings) -> None:
    arrow, parquet = _arrow()
    vectors = arrow.FixedSizeListArray.from_arrays(arrow.array(embeddings.vectors.ravel()), embeddings.vectors.shape[1])
    metadata = {"clipita.fingerprint": embeddings.fingerprint, "clipita.model": embeddings.model}
    columns = {"key": arrow.array(embeddings.keys, arrow.string()), "embedding": vectors}
    parquet.write_table(arrow.table(columns).replace_schema_metadata(metadata), path)


def _read_parquet(path: Path) -> Embeddings:
    _, parquet = _arrow()
    table: Any = parquet.read_table(path)
    metadata: dict[bytes, bytes] = table.schema.metadata
    width: int = table.schema.field("embedding").type.list_size
    vectors: npt.NDArray[np.float32] = table["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, width)
    keys: list[str] = table["key"].to_pylist()
    return Embeddings(keys, vectors, metadata[b"clipita.fingerprint"].decode(), metadata[b"clipita.model"].decode())


def _arrow() -> tuple[Any, Any]:
    import pyarrow  # pyright: ignore[reportMissingTypeStubs]
    import pyarrow.parquet  # pyright: ignore[reportMissingTypeStubs]

    return pyarrow, pyarrow.parquet


@contextlib.contextmanager
def _replacing(path: Path) -> Generator[Path]:
    """A path to write to, which becomes `path` if all goes well."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)

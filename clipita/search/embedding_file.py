"""Read and write the files of `clipita embed`: embeddings of photographs under their paths, as .npz or .parquet."""

import dataclasses
import errno
from pathlib import Path
from typing import Any

import numpy as np

from clipita.errors import CheckpointError, ClipitaError
from clipita.images.photo_files import Stamp
from clipita.system.arrays import FloatArray, IntArray
from clipita.system.files import replacing

# The stamp of an entry from a time when files did not hold stamps.
UNKNOWN = Stamp(-1, -1)

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """The contents of a file of embeddings.

    Attributes:
        keys: (N,) paths below the folder, with "/" between their parts.
        vectors: (N, E) float32, unit norm.
        fingerprint: The fingerprint of the model and the crop that made them.
        model: The model's name.
        stamps: (N,) size and time of each photograph when it was embedded, or `UNKNOWN`.
    """

    keys: list[str]
    vectors: FloatArray
    fingerprint: str
    model: str
    stamps: list[Stamp]


def write_embeddings(path: Path, embeddings: Embeddings) -> None:
    """Write a file, whole or not at all.

    Args:
        path: The file. A .npz gets the arrays "keys", "embeddings", "fingerprint", "model", "sizes" and "mtimes_ns"; a
            .parquet gets the columns "key", "embedding", "size" and "mtime_ns".
        embeddings: The contents.

    Raises:
        ClipitaError: The file cannot be written.
    """
    stamps = np.array(embeddings.stamps, np.int64).reshape(-1, 2)
    try:
        with replacing(path) as part:
            if path.suffix == ".parquet":
                _write_parquet(part, embeddings, stamps)
                return
            with part.open("wb") as file:
                np.savez(
                    file,
                    keys=np.array(embeddings.keys, dtype=np.str_),
                    embeddings=embeddings.vectors,
                    fingerprint=np.array(embeddings.fingerprint),
                    model=np.array(embeddings.model),
                    sizes=stamps[:, 0],
                    mtimes_ns=stamps[:, 1],
                )
    except OSError as error:
        raise cannot_write(path, error) from error


def read_embeddings(path: Path) -> Embeddings:
    """Read a file of `write_embeddings`, or of its earlier form without sizes and times.

    Raises:
        CheckpointError: The file is damaged, or something else.
    """
    try:
        read = _read_parquet if path.suffix == ".parquet" else _read_npz
        embeddings = read(path)
        if not len(embeddings.keys) == len(embeddings.vectors) == len(embeddings.stamps):
            raise ValueError("rows are missing")
        return embeddings
    except Exception as error:  # zipfile, NumPy and Arrow raise errors of their own
        raise CheckpointError(
            f"{str(path)!r} exists and is no file of embeddings, or a damaged one. Use another file, or --overwrite."
        ) from error


def cannot_write(path: Path, error: OSError) -> ClipitaError:
    """Return the error that says which file cannot be written, why, and what to do."""
    advice = "Name another place as --output."
    if error.errno in _NO_ROOM:
        advice = "Make room there and give the same command again: what was done is kept. Or name another place."
    return ClipitaError(f"{str(path)!r} cannot be written: {error.strerror or error}. {advice}")


def _read_npz(path: Path) -> Embeddings:
    # np.load would not close a file that only looks like a zip archive; so it is opened and closed here.
    with path.open("rb") as file, np.load(file) as arrays:
        keys: list[str] = arrays["keys"].tolist()
        stamps = _stamps(arrays["sizes"], arrays["mtimes_ns"]) if "sizes" in arrays else [UNKNOWN] * len(keys)
        return Embeddings(keys, arrays["embeddings"], str(arrays["fingerprint"]), str(arrays["model"]), stamps)


def _write_parquet(path: Path, embeddings: Embeddings, stamps: IntArray) -> None:
    arrow, parquet = _arrow()
    vectors = arrow.FixedSizeListArray.from_arrays(arrow.array(embeddings.vectors.ravel()), embeddings.vectors.shape[1])
    metadata = {"clipita.fingerprint": embeddings.fingerprint, "clipita.model": embeddings.model}
    columns = {
        "key": arrow.array(embeddings.keys, arrow.string()),
        "embedding": vectors,
        "size": arrow.array(stamps[:, 0]),
        "mtime_ns": arrow.array(stamps[:, 1]),
    }
    parquet.write_table(arrow.table(columns).replace_schema_metadata(metadata), path)


def _read_parquet(path: Path) -> Embeddings:
    _, parquet = _arrow()
    table: Any = parquet.read_table(path)
    metadata: dict[bytes, bytes] = table.schema.metadata
    width: int = table.schema.field("embedding").type.list_size
    vectors: FloatArray = table["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, width)
    keys: list[str] = table["key"].to_pylist()
    stamps = [UNKNOWN] * len(keys)
    if "size" in table.column_names:
        stamps = _stamps(table["size"].to_numpy(), table["mtime_ns"].to_numpy())
    return Embeddings(
        keys, vectors, metadata[b"clipita.fingerprint"].decode(), metadata[b"clipita.model"].decode(), stamps
    )


def _stamps(sizes: IntArray, times: IntArray) -> list[Stamp]:
    return [Stamp(size, time) for size, time in zip(sizes.tolist(), times.tolist(), strict=True)]


def _arrow() -> tuple[Any, Any]:
    import pyarrow  # pyright: ignore[reportMissingTypeStubs]
    import pyarrow.parquet  # pyright: ignore[reportMissingTypeStubs]

    return pyarrow, pyarrow.parquet

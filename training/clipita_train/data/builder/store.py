"""Store the intermediate results of a build in Parquet files, whose names are hashes of their inputs."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clipita_train.data.builder.recipe import Evaluation, Source
from clipita_train.engine.files import written_whole


def digest(*parts: object) -> str:
    """Return 16 hexadecimal digits of a hash of some objects.

    The repr of each must be complete: numbers, texts, tuples and frozen dataclasses will do.
    """
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def signature(path: Path, root: Path) -> tuple[tuple[str, int, int], ...]:
    """Return path, size and time of change of a file, or of all files of a folder, to see whether they have changed."""
    files = sorted(found for found in path.rglob("*") if found.is_file()) if path.is_dir() else [path]
    return tuple((below(file, root), *_state(file)) for file in files)


def below(path: Path, root: Path) -> str:
    """Return a path relative to the root, or the path itself if it is not below the root."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _state(path: Path) -> tuple[int, int]:
    try:
        about = path.stat()
    except OSError:
        return -1, -1
    return about.st_size, about.st_mtime_ns


def row_id(row: Mapping[str, Any]) -> str:
    """Return the id of a row, SOURCE/KEY, by which shards and copies refer to it."""
    return f"{row['source']}/{row['key']}"


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table to a file, whole or not at all; the same table gives the same bytes."""
    with written_whole(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def read_columns(paths: Iterable[Path], columns: Sequence[str] | None = None) -> pa.Table:
    """Read columns from several files whose rows correspond, and join them into one table.

    Args:
        paths: Files with the same number of rows.
        columns: Names of the columns, from any of the files; None: all.

    Raises:
        ValueError: No file has one of the columns.
    """
    found: dict[str, Any] = {}
    for path in paths:
        file = pq.ParquetFile(path)
        names = [name for name in file.schema_arrow.names if columns is None or name in columns]
        table = file.read(columns=names)
        found |= dict(zip(names, table.columns, strict=True))
    if missing := [name for name in columns or () if name not in found]:
        raise ValueError(f"no column {missing[0]!r} in {', '.join(path.name for path in paths)}")
    return pa.table(found)


@dataclass
class Chunk:
    """A part of the rows of one source, with the columns that steps have computed for them."""

    source: Source | Evaluation
    rows: Path
    columns: dict[str, Path] = field(default_factory=dict)  # name of a step to its file

    @property
    def paths(self) -> tuple[Path, ...]:
        """The paths of all files of the chunk."""
        return (self.rows, *self.columns.values())

    def read(self, *columns: str) -> pa.Table:
        """Read these columns, or all."""
        return read_columns(self.paths, columns or None)

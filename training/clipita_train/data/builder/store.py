"""Where a build keeps what it has computed: Parquet files whose names come from what they were computed from."""

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
    """16 hexadecimal digits of anything whose repr says all of it: numbers, texts, tuples, frozen dataclasses."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def signature(path: Path, root: Path) -> tuple[tuple[str, int, int], ...]:
    """Path, size and time of change of a file, or of every file in a folder: what tells that it is still the same."""
    files = sorted(found for found in path.rglob("*") if found.is_file()) if path.is_dir() else [path]
    return tuple((below(file, root), *_state(file)) for file in files)


def below(path: Path, root: Path) -> str:
    """The path from the root on, where it is below it."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _state(path: Path) -> tuple[int, int]:
    try:
        about = path.stat()
    except OSError:
        return -1, -1
    return about.st_size, about.st_mtime_ns


def row_id(row: Mapping[str, Any]) -> str:
    """What a row is called in shards, and by copies of it."""
    return f"{row['source']}/{row['key']}"


def write_table(table: pa.Table, path: Path) -> None:
    """Writes it whole or not at all; the same table makes the same bytes."""
    with written_whole(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def read_columns(paths: Iterable[Path], columns: Sequence[str] | None = None) -> pa.Table:
    """Files of as many rows each, side by side: the columns asked for, wherever they are, or all.

    Raises:
        ValueError: none of the files has one of the columns.
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
    """Rows of one source, and the columns that steps have made of them."""

    source: Source | Evaluation
    rows: Path
    columns: dict[str, Path] = field(default_factory=dict)  # name of the step -> its file

    @property
    def paths(self) -> tuple[Path, ...]:
        """All its files."""
        return (self.rows, *self.columns.values())

    def read(self, *columns: str) -> pa.Table:
        """These columns, or all."""
        return read_columns(self.paths, columns or None)

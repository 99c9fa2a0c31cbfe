"""Steps compute further columns for each row by itself: pure functions from a table to a table. They drop nothing.

A column on captions holds lists, with a value for each caption.
"""

import hashlib
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa

from clipita.errors import ImageError
from clipita.images.pixels import load_picture
from clipita_train.data.builder.store import digest, read_columns, signature, write_table
from clipita_train.data.near_duplicates.min_hash import SIGNATURE, caption_signatures
from clipita_train.data.near_duplicates.perceptual_hash import perceptual_hash
from clipita_train.data.pairs import text

_HASHED_SIDE = 128  # pixels: enough for a hash of 32 x 32, and fast to decode

IMAGE_COLUMNS = ("path", "file", "bytes")

Function = Callable[[pa.Table], pa.Table]


class Step(Protocol):
    """A computation on tables, as a frozen dataclass.

    Its repr, which contains its settings, is part of the names of its results.
    """

    name: ClassVar[str]
    version: ClassVar[int]  # of its function; raised when the same rows get other values
    reads: ClassVar[tuple[str, ...]]  # columns, unless `columns` says which
    needs: ClassVar[tuple[str, ...]]  # names of the steps that make columns which the rows do not have

    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns that the function reads."""
        return self.reads

    def load(self) -> Function:
        """Return the function, with the models that it needs; called once in each process."""
        ...

    def seen(self, inputs: Sequence[Path]) -> str:
        """Return what the result depends on beside the inputs, e.g. the state of files that the inputs name."""
        return ""


@dataclass(frozen=True)
class Run:
    """The task of running a step on a chunk."""

    step: Step
    inputs: tuple[Path, ...]  # the file of the rows, and the files of columns that other steps have made
    folder: Path
    seen: str = ""

    @property
    def output(self) -> Path:
        """The path of the computed columns."""
        key = digest(self.step.name, self.step.version, self.step, self.seen, *(path.name for path in self.inputs))
        return self.folder / f"{self.step.name}-{key}.parquet"

    def run(self) -> None:
        """Compute the columns and write them."""
        function = _loaded(pickle.dumps(self.step))
        write_table(function(read_columns(self.inputs, self.step.columns())), self.output)


@lru_cache(maxsize=1)  # steps run one after another, so the model of an earlier step is not needed any more
def _loaded(step: bytes) -> Function:
    return pickle.loads(step).load()


@dataclass(frozen=True)
class Text(Step):
    """Compute the columns of `clipita_train.data.pairs.text` for each caption."""

    name: ClassVar[str] = "text"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("captions",)
    needs: ClassVar[tuple[str, ...]] = ()

    def load(self) -> Function:
        """Return the function."""
        return _text


def _text(table: pa.Table) -> pa.Table:
    captions = flat(table)
    codes, probabilities = zip(*text.language(captions), strict=True) if captions else ((), ())
    return nested(
        table,
        {
            "characters": pa.array(text.characters(captions), pa.int32()),
            "words": pa.array(text.words(captions), pa.int32()),
            "letter_share": pa.array(text.letter_share(captions), pa.float32()),
            "file_name": pa.array(text.file_name(captions), pa.bool_()),
            "boilerplate": pa.array(text.boilerplate(captions), pa.bool_()),
            "personal_data": pa.array(text.personal_data(captions), pa.string()),
            "caption_language": pa.array(codes, pa.string()),
            "language_probability": pa.array(probabilities, pa.float32()),
        },
    )


@dataclass(frozen=True)
class Signatures(Step):
    """Compute the MinHash signature of each caption, as bytes."""

    name: ClassVar[str] = "signatures"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("captions",)
    needs: ClassVar[tuple[str, ...]] = ()

    def load(self) -> Function:
        """Return the function."""
        return _signatures


def _signatures(table: pa.Table) -> pa.Table:
    found = caption_signatures(flat(table))
    return nested(table, {"signature": pa.array([row.tobytes() for row in found], pa.binary(4 * SIGNATURE))})


@dataclass(frozen=True)
class Images(Step):
    """Compute the hash, size and perceptual hash of each photograph, or say why it cannot be read."""

    root: Path = field(repr=False)
    out: Path = field(repr=False)
    name: ClassVar[str] = "images"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = IMAGE_COLUMNS
    needs: ClassVar[tuple[str, ...]] = ("download",)

    def load(self) -> Function:
        """Return the function."""
        return self._function

    def seen(self, inputs: Sequence[Path]) -> str:
        """Return a hash of the state of all photographs; if one changes, the chunk is computed again."""
        rows = read_columns(inputs, ["path", "file"]).to_pylist()
        return digest([signature(path, self.root) for row in rows if (path := image_file(row, self.root, self.out))])

    def _function(self, table: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([_image(row, self.root, self.out) for row in table.to_pylist()], IMAGE_SCHEMA)


IMAGE_SCHEMA = pa.schema(
    [
        ("sha256", pa.string()),  # of the file
        ("size", pa.int64()),  # of the file, in bytes
        ("width", pa.int32()),  # upright, in pixels
        ("height", pa.int32()),
        ("hash", pa.uint64()),  # perceptual hash
        ("problem", pa.string()),  # why it cannot be read
    ]
)


def image_file(row: dict[str, Any], root: Path, out: Path) -> Path | None:
    """Return the path of a row's photograph; None if it comes with the row, or there is none."""
    if row["path"] is not None:
        return root / row["path"]
    return out / row["file"] if row["file"] is not None else None


def image_bytes(row: dict[str, Any], root: Path, out: Path) -> bytes:
    """Return a row's photograph, found by its `IMAGE_COLUMNS`.

    Raises:
        OSError: There is none, or its file cannot be read.
    """
    if (path := image_file(row, root, out)) is not None:
        return path.read_bytes()
    if row["bytes"] is None:
        raise FileNotFoundError("there is no file")
    return row["bytes"]


def _image(row: dict[str, Any], root: Path, out: Path) -> dict[str, Any]:
    try:
        data = image_bytes(row, root, out)
    except OSError as error:
        return {"problem": error.strerror or str(error)}
    found: dict[str, Any] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    try:
        picture, (found["width"], found["height"]) = load_picture(data, max_side=_HASHED_SIDE, name="the image")
        found["hash"] = perceptual_hash(picture)
    except ImageError as error:
        found["problem"] = str(error)
    return found


def flat(table: pa.Table, column: str = "captions") -> list[Any]:
    """Return all values of a column of lists, one after another."""
    return table[column].combine_chunks().flatten().to_pylist()


def nested(table: pa.Table, values: dict[str, pa.Array]) -> pa.Table:
    """Put values, one for each caption, into lists as long as the lists of captions in the table."""
    lengths = table["captions"].combine_chunks().value_lengths()
    offsets = pa.array(np.cumsum([0, *lengths.to_pylist()]), pa.int32())
    return pa.table({name: pa.ListArray.from_arrays(offsets, column) for name, column in values.items()})

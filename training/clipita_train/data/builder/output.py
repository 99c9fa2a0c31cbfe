"""Write the rows that are kept as shards of photographs and captions, and all rows as a manifest."""

import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clipita.errors import ClipitaError
from clipita_train.data.builder.compare import TRAIN, VALIDATION
from clipita_train.data.builder.steps import IMAGE_COLUMNS, image_bytes, image_file
from clipita_train.data.builder.store import Chunk, digest, read_columns, row_id
from clipita_train.data.shards import SUFFIX, Record, Shard, write_index, write_shard
from clipita_train.engine.files import written_whole

VERSION = 1
MANIFEST = "manifest.parquet"
NOT_LISTED = ("bytes", "signature")  # columns too large for the manifest
_CONTENT = ("source", "key", "sha256", "captions", "caption_reasons", "split")
_SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}


class ChangedError(ClipitaError):
    """A photograph has changed since it was read."""


@dataclass(frozen=True)
class Piece:
    """A range of the rows of a chunk that are kept for one split.

    Attributes:
        files: The files of the chunk.
        split: "train" or "validation".
        start: Number of the first row, among the rows kept for the split.
        stop: Number after the last row.
        content: A hash of all rows that the chunk has for the split.
    """

    files: tuple[Path, ...]
    split: str
    start: int
    stop: int
    content: str


@dataclass(frozen=True)
class WriteShard:
    """The task of writing one shard.

    A hash of its contents is part of its name, so that a shard that exists need not be written again.
    """

    number: int
    pieces: tuple[Piece, ...]
    root: Path
    folder: Path
    as_tar: bool = False

    @property
    def output(self) -> Path:
        """The path of the shard."""
        key = digest("shard", VERSION, *((piece.content, piece.start, piece.stop) for piece in self.pieces))
        return self.folder / f"shard-{self.number:05}-{key}{'.tar' if self.as_tar else SUFFIX}"

    @property
    def records(self) -> int:
        """The number of records in the shard."""
        return sum(piece.stop - piece.start for piece in self.pieces)

    def run(self) -> None:
        """Read the photographs and write the shard.

        Raises:
            ChangedError: A photograph has changed, or is gone.
        """
        records = (record for piece in self.pieces for record in _records(piece, self.root, self.folder.parent))
        if self.as_tar:
            write_web_dataset(self.output, records)
        else:
            write_shard(self.output, records)


def plan(chunks: Sequence[Chunk], root: Path, out: Path, size: int) -> list[WriteShard]:
    """Distribute all kept rows over shards of `size` records, in the order of the chunks.

    Args:
        chunks: Rows with the columns of all steps.
        root: The folder of the sources.
        out: The folder of the data set; shards go to `out`/train and `out`/validation.
        size: Records of a shard.
    """
    tasks = list[WriteShard]()
    for split in (TRAIN, VALIDATION):
        full, number = list[Piece](), 0
        for piece in _cut(chunks, split, size):
            full.append(piece)
            if sum(part.stop - part.start for part in full) == size:
                tasks.append(WriteShard(number, tuple(full), root, out / split))
                full, number = [], number + 1
        if full:
            tasks.append(WriteShard(number, tuple(full), root, out / split))
    return tasks


def _cut(chunks: Sequence[Chunk], split: str, size: int) -> Iterator[Piece]:
    """Cut the kept rows of a split into pieces, at the ends of chunks and of shards."""
    before = 0
    for chunk in chunks:
        kept = [(row_id(row), row["sha256"], row["captions"]) for row in _kept(chunk.paths, split, _CONTENT)]
        content, start = digest(kept), 0
        while start < len(kept):
            stop = min(len(kept), start + size - before % size)
            yield Piece(chunk.paths, split, start, stop, content)
            before, start = before + stop - start, stop


def _kept(files: Sequence[Path], split: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of a split, with only the captions that are kept."""
    table = read_columns(files, columns)
    # pyarrow makes its compute functions when it is imported; its types do not list them.
    of_split = pc.equal(table["split"], split)  # pyright: ignore[reportAttributeAccessIssue]
    rows = table.filter(of_split).to_pylist()
    for row in rows:
        pairs = zip(row["captions"], row["caption_reasons"], strict=True)
        row["captions"] = tuple(caption for caption, reason in pairs if not reason)
    return rows


def _records(piece: Piece, root: Path, out: Path) -> Iterator[Record]:
    for row in _kept(piece.files, piece.split, (*_CONTENT, *IMAGE_COLUMNS))[piece.start : piece.stop]:
        image = image_bytes(row, root, out)
        if sha256(image).hexdigest() != row["sha256"]:
            raise ChangedError(f"{image_file(row, root, out)} has changed while the data set was built: build it again")
        yield Record(row_id(row), image, row["captions"])


def finish(tasks: Sequence[WriteShard], out: Path) -> None:
    """Write the index of each split, and remove the shards of earlier builds."""
    for split in (TRAIN, VALIDATION):
        folder = out / split
        folder.mkdir(parents=True, exist_ok=True)
        written = [task for task in tasks if task.folder == folder]
        in_index = [task for task in written if not task.as_tar]
        write_index(folder, [Shard(t.output.name, t.records, t.output.stat().st_size) for t in in_index])
        names = {task.output.name for task in written}
        for path in folder.glob("shard-*"):
            if path.name not in names:
                path.unlink()


def write_web_dataset(path: Path, records: Iterator[Record]) -> None:
    """Write a tar with `NUMBER.jpg`, `NUMBER.txt` (one caption a line) and `NUMBER.id` for each record."""
    from PIL import Image

    with written_whole(path) as partial, tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as archive:
        for number, record in enumerate(records):
            with Image.open(io.BytesIO(record.image)) as image:
                suffix = _SUFFIXES.get(image.format or "", (image.format or "image").lower())
            texts = {"txt": "\n".join(record.captions), "id": record.id}
            files = {suffix: record.image} | {name: text.encode() for name, text in texts.items()}
            for ending, data in files.items():
                member = tarfile.TarInfo(f"{number:06}.{ending}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def write_manifest(chunks: Sequence[Chunk], out: Path, build: str) -> None:
    """Write all rows of all chunks with all columns, and `record`, the number of a row in the shards of its split."""
    tables = (_listed(chunk) for chunk in chunks)
    schema = pa.unify_schemas([pq.read_schema(path) for chunk in chunks for path in chunk.paths])
    names = [name for name in schema.names if name not in NOT_LISTED]
    schema = pa.schema([schema.field(name) for name in names]).append(pa.field("record", pa.int64()))
    schema = schema.with_metadata({"clipita.build": build})
    numbers = {TRAIN: 0, VALIDATION: 0}
    with written_whole(out / MANIFEST) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for table in tables:
            record = list[int | None]()
            for split in table["split"].to_pylist():
                record.append(numbers.get(split))
                if split is not None:
                    numbers[split] += 1
            columns = {name: table[name] if name in table.column_names else None for name in names}
            filled = [pa.nulls(len(table), schema.field(name).type) if c is None else c for name, c in columns.items()]
            writer.write_table(pa.table([*filled, pa.array(record, pa.int64())], schema=schema))


def _listed(chunk: Chunk) -> pa.Table:
    names = [name for path in chunk.paths for name in pq.read_schema(path).names if name not in NOT_LISTED]
    return chunk.read(*names)

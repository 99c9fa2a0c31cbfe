"""Read sources into chunks: Parquet files with a limited number of rows each."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, assert_never

import pyarrow as pa

from clipita_train.data.builder.recipe import Evaluation, Source
from clipita_train.data.builder.store import below, digest, signature, write_table
from clipita_train.data.captions.files import locate, read_captions
from clipita_train.data.pairs import readers, tables
from clipita_train.data.pairs.readers import Items
from clipita_train.data.pairs.rows import Bad, Row, Tally
from clipita_train.engine.files import written_whole

VERSION = 1
SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("key", pa.string()),
        ("path", pa.string()),  # at most one of these three is set: the path of a file, relative to the root,
        ("bytes", pa.binary()),  # its contents,
        ("address", pa.string()),  # or its address on the web
        ("captions", pa.list_(pa.string())),
        ("language", pa.string()),
        ("licence", pa.string()),
        ("page", pa.string()),
    ]
)
NO_IMAGE = ("the image is missing", "an image of zero bytes")  # how reasons for missing images begin
CHUNK_BYTES = 1 << 28  # limit of a chunk, for images that come with their rows


@dataclass(frozen=True)
class Read:
    """The task of reading one file of a source into chunks. `output` lists the chunks and what could not be read."""

    source: Source | Evaluation
    file: Path
    root: Path
    chunk_rows: int
    folder: Path

    @property
    def key(self) -> str:
        """A hash of the file and of how it is read; rules, which are applied later, do not count."""
        source = replace(self.source, rules=Source.rules) if isinstance(self.source, Source) else self.source
        return digest("read", VERSION, source, self.chunk_rows, *signature(self.file, self.root))

    @property
    def output(self) -> Path:
        """The path of the list of chunks."""
        return self.folder / f"rows-{self.source.name}-{self.key}.json"

    def run(self) -> None:
        """Read the whole file.

        The names of chunks contain a hash of their rows, so that they change when images that were missing have come.
        """
        tally, chunks = Tally(), list[str]()
        for number, rows in enumerate(_chunks(tally.good(self._items()), self.root, self.chunk_rows)):
            path = self.output.with_name(f"{self.output.stem}-{number:06}-{_content(rows)}.parquet")
            if not path.exists():
                write_table(pa.Table.from_pylist(rows, SCHEMA), path)
            chunks.append(path.name)
        listing = json.dumps({"chunks": chunks, "tally": vars(tally)}, ensure_ascii=False, indent=1)
        with written_whole(self.output) as path:
            path.write_text(listing + "\n", encoding="utf-8")

    @property
    def chunks(self) -> list[Path]:
        """The paths of the chunks, in the order of the rows."""
        return [self.folder / name for name in self._listing["chunks"]]

    @property
    def tally(self) -> Tally:
        """Counts of the rows that could and could not be read."""
        fields = self._listing["tally"]
        return Tally(**fields | {"bad": Counter(fields["bad"])})

    def forget_if_images_were_missing(self) -> None:
        """Delete the list of chunks if images were missing, so that the file is read again: they may have come."""
        if self.output.exists() and any(reason.startswith(NO_IMAGE) for reason in self.tally.bad):
            self.output.unlink()

    @property
    def _listing(self) -> dict[str, Any]:
        return json.loads(self.output.read_text("utf-8"))

    def _items(self) -> Items:
        if isinstance(self.source, Evaluation):
            yield from _evaluation(self.source, self.file, self.root)
            return
        for item in _reader(self.source, self.root)(self.file):
            yield item if isinstance(item, Bad) else self._named(item, self.source)

    def _named(self, row: Row, source: Source) -> Row:
        return replace(row, source=source.name, licence=source.licence or row.licence)


def files_of(source: Source | Evaluation, root: Path) -> list[Path]:
    """Return the files of a source, in the order of its patterns and then of their names.

    Raises:
        FileNotFoundError: A pattern fits no file.
    """
    found = []
    for pattern in source.files if isinstance(source, Source) else (source.captions,):
        paths = sorted(root.glob(pattern))
        if not paths:
            raise FileNotFoundError(f"{source.name!r} has no file {root / pattern}. Get it, or leave the source out")
        found += [path for path in paths if path not in found]
    return found


def _reader(source: Source, root: Path) -> Any:
    """Return the function that reads a file of the source."""
    images = root / source.images
    named = {"source": source.name, "licence": source.licence or "", "language": source.language}
    match source.reader:
        case "wit":
            return partial(readers.wit, captions=source.wit_captions, language=source.language)
        case "conceptual_3m" | "conceptual_12m":
            return getattr(readers, source.reader)
        case "mscoco_it":
            return partial(readers.mscoco_it, coco=images)
        case "json_lines":
            return partial(readers.json_lines, images=images, **named)
        case "sidecars":
            return partial(readers.sidecars, **named)
        case "table":
            columns = {"image_column": source.image_column, "caption_column": source.caption_column}
            return partial(tables.table, images=images, **named, **columns)
        case "web_dataset":
            return partial(tables.web_dataset, **named)
        case _:
            assert_never(source.reader)


def _evaluation(evaluation: Evaluation, file: Path, root: Path) -> Items:
    found = read_captions(file, evaluation.format, locale=evaluation.locale)
    names = [one.image for one in found]
    places = locate(root / evaluation.images, names) if evaluation.images is not None else [None] * len(names)
    for one, place in zip(found, places, strict=True):
        if place is None and evaluation.images is not None:
            yield Bad(one.image, "the image is missing; only its captions are kept out")
        yield Row(evaluation.name, one.image, place, one.captions, evaluation.locale[:2], "")


def _chunks(rows: Iterator[Row], root: Path, size: int) -> Iterator[list[dict[str, Any]]]:
    chunk, weight = list[dict[str, Any]](), 0
    for row in rows:
        chunk.append(_fields(row, root))
        weight += len(row.image) if isinstance(row.image, bytes) else 0
        if len(chunk) == size or weight >= CHUNK_BYTES:
            yield chunk
            chunk, weight = [], 0
    if chunk:
        yield chunk


def _content(rows: list[dict[str, Any]]) -> str:
    return digest([row | {"bytes": row["bytes"] and sha256(row["bytes"]).digest()} for row in rows])


def _fields(row: Row, root: Path) -> dict[str, Any]:
    image = row.image
    return {
        "source": row.source,
        "key": row.key,
        "path": below(image, root) if isinstance(image, Path) else None,
        "bytes": image if isinstance(image, bytes) else None,
        "address": image if isinstance(image, str) else None,
        "captions": [
            " ".join(caption.split()) for caption in row.captions
        ],  # on one line, since tar files have one caption a line
        "language": row.language,
        "licence": row.licence,
        "page": row.page,
    }

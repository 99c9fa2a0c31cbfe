"""Read tables and archives as rows: CSV, Parquet and WebDataset.

Broken rows are yielded as `Bad`, as in readers.py.
"""

import csv
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clipita.images.photo_files import is_hidden, readable_suffixes
from clipita_train.data.captions.files import locate
from clipita_train.data.pairs.lines import read_lines
from clipita_train.data.pairs.readers import Items, captioned, is_address
from clipita_train.data.pairs.rows import Bad, Row

LARGEST = 1 << 26  # limit in bytes of a file in an archive


def table(
    path: Path,
    images: Path,
    *,
    source: str,
    licence: str,
    language: str = "it",
    image_column: str = "image",
    caption_column: str = "caption",
) -> Items:
    """Read a CSV or Parquet file; the image of a row is an address, or a path in the folder `images`.

    In Parquet an image may also be bytes, alone or as Hugging Face keeps them ({"bytes", "path"}), and captions may be
    a list.

    Args:
        path: The file.
        images: The folder of the images.
        source: Name of the source.
        licence: License of the rows.
        language: Language of the captions, ISO 639-1.
        image_column: Name of the column of images.
        caption_column: Name of the column of captions.

    Raises:
        ValueError: The file has no such columns.
    """
    cells = _parquet if path.suffix == ".parquet" else _csv
    for item in cells(path, image_column, caption_column):
        if isinstance(item, Bad):
            yield item
            continue
        place, image, caption = item
        if isinstance(image, dict):
            image = image.get("bytes") or image.get("path")
        if isinstance(image, str) and not is_address(image):
            image = locate(images, [image])[0] if image else None
        if not isinstance(image, str | bytes | Path):
            image = None
        captions = [text for text in (caption if isinstance(caption, list) else [caption]) if isinstance(text, str)]
        yield captioned(source, place, image, captions, language, licence)


def web_dataset(path: Path, *, source: str, licence: str, language: str = "it") -> Items:
    """Read a tar, compressed or not: `KEY.jpg` with `KEY.txt` (one caption a line) or `KEY.json` {"caption": ...}."""
    key, files = "", dict[str, bytes]()
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                folder, _, name = member.name.rpartition("/")
                if is_hidden(name):  # tar on a Mac writes `._x.jpg` beside each file
                    continue
                stem, _, suffix = name.partition(".")  # in WebDataset the key ends at the first dot of the name
                next_key = f"{folder}/{stem}" if folder else stem
                if next_key != key and files:
                    yield _sample(f"{path.name}:{key}", files, source, language, licence)
                    files = {}
                key = next_key
                if member.size > LARGEST:
                    yield Bad(f"{path.name}:{member.name}", f"a file of more than {LARGEST} bytes")
                    continue
                file = archive.extractfile(member)
                assert file is not None  # every member that is a file has contents
                files[f".{suffix.lower()}"] = file.read()
            # tarfile takes a missing or cut-off header for the end of the archive; the real end is a block of zeros.
            assert archive.fileobj is not None
            if archive.fileobj.tell() < archive.offset + tarfile.BLOCKSIZE:
                raise EOFError
    except FileNotFoundError:
        raise
    except (tarfile.TarError, EOFError, OSError):
        yield Bad(f"{path.name}:{key}", "the archive is damaged or ends early")
        return
    if files:
        yield _sample(f"{path.name}:{key}", files, source, language, licence)


def _sample(place: str, files: dict[str, bytes], source: str, language: str, licence: str) -> Row | Bad:
    image = next((data for suffix, data in files.items() if suffix in readable_suffixes()), None)
    try:
        captions = files.get(".txt", b"").decode("utf-8-sig").splitlines()
        if not captions and ".json" in files:
            captions = [json.loads(files[".json"])["caption"].strip()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Bad(place, "captions that are not UTF-8, or JSON without a caption")
    return captioned(source, place, image, captions, language, licence)


def _csv(path: Path, image: str, caption: str) -> Iterator[tuple[str, Any, Any] | Bad]:
    broken: list[Bad] = []

    def lines() -> Iterator[str]:
        for item in read_lines(path):
            if isinstance(item, Bad):
                broken.append(item)
            else:
                yield item[1] + "\n"

    rows = csv.reader(lines(), strict=True)
    header: list[str] = []
    number, left, right = -1, 0, 0
    while True:
        try:
            row = next(rows)
        except StopIteration:
            break
        except csv.Error:  # a quoted cell that does not end, or text after its end; the reader goes on at the next line
            row = None
        number += 1
        yield from broken
        broken.clear()
        if row and not header:
            header = row
            left, right = _columns(path, header, image, caption)
        elif not row or len(row) != len(header):
            yield Bad(f"{path.name}:row {number}", f"a row without {len(header)} columns")
        else:
            yield f"{path.name}:row {number}", row[left], row[right]
    yield from broken


def _parquet(path: Path, image: str, caption: str) -> Iterator[tuple[str, Any, Any] | Bad]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _columns(path, file.schema_arrow.names, image, caption)
            number = 0
            for batch in file.iter_batches(256, columns=[image, caption]):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path.name}:row {number}", row[image], row[caption]
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError):
        yield Bad(path.name, "not Parquet, or damaged")


def _columns(path: Path, names: list[str], *wanted: str) -> list[int]:
    if missing := [name for name in wanted if name not in names]:
        raise ValueError(f"{path} has no column {missing[0]!r}; it has: {', '.join(names)}")
    return [names.index(name) for name in wanted]

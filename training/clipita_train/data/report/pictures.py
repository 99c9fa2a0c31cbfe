"""Make small pictures for the rows that a page shows, as `data:` addresses."""

import base64
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from clipita.errors import ClipitaError
from clipita.images.pixels import load_picture
from clipita_train.data.builder.store import row_id
from clipita_train.data.shards import ShardReader

SIDE = 176
QUALITY = 72


def thumbnails(rows: Iterable[dict[str, Any]], root: Path | None, out: Path) -> dict[str, str]:
    """Return a `data:` address with the picture of each row, by the row's id, or a text that says why there is none.

    Photographs are looked for in the shards if they were kept, below `out` if they were downloaded, and below `root`.
    Those that came with their rows are taken from the intermediate results of the build, unless these were deleted.

    Args:
        rows: Rows of the manifest.
        root: The folder of the sources, or None.
        out: The folder of the build.
    """
    wanted = {row_id(row): row for row in rows}
    found: dict[str, str] = {}
    readers: dict[str, ShardReader] = {}
    for id_, row in wanted.items():
        try:
            if (image := _image(row, root, out, readers)) is not None:
                found[id_] = _thumbnail(image)
        except (OSError, ClipitaError) as error:
            found[id_] = row.get("problem") or str(error)
    missing = {id_ for id_ in wanted if id_ not in found}
    for id_, image in _embedded(missing, out):
        try:
            found[id_] = _thumbnail(image)
        except ClipitaError as error:
            found[id_] = str(error)
    return {id_: found.get(id_) or row.get("problem") or "no picture" for id_, row in wanted.items()}


def _image(row: dict[str, Any], root: Path | None, out: Path, readers: dict[str, ShardReader]) -> bytes | None:
    if row.get("record") is not None:
        if row["split"] not in readers:
            readers[row["split"]] = ShardReader(out / row["split"])
        return readers[row["split"]][row["record"]].image
    if row.get("file") is not None:
        return (out / row["file"]).read_bytes()
    if row.get("path") is not None and root is not None:
        return (root / row["path"]).read_bytes()
    return None


def _embedded(ids: set[str], out: Path) -> Iterable[tuple[str, bytes]]:
    sources = {id_.partition("/")[0] for id_ in ids}
    for source in sorted(sources):
        for path in sorted((out / "work").glob(f"rows-{source}-*.parquet")):
            with pq.ParquetFile(path) as file:
                keys = file.read(["source", "key"]).to_pylist()
                places = [place for place, row in enumerate(keys) if row_id(row) in ids]
                if places:
                    images = file.read(["bytes"])["bytes"]
                    yield from (
                        (row_id(keys[place]), image) for place in places if (image := images[place].as_py()) is not None
                    )


def _thumbnail(image: bytes) -> str:
    picture, _ = load_picture(image, max_side=SIDE, name="the image")
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

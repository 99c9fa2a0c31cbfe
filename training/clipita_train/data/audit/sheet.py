"""Draw captions for an audit, write them to a sheet, and read the marks of the filled-in sheets."""

import csv
import hashlib
import heapq
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clipita.system.arrays import Array

COLUMNS = ("item", "original", "caption", "mark")


class Item(NamedTuple):
    """A caption to be rated. Its id is a hash of its texts, so it is the same on every sheet."""

    id: str
    original: str
    caption: str


def read_items(path: Path, *, caption_column: str, original_column: str | None) -> Iterator[Item]:
    """Read captions from a CSV, a Parquet file or JSON lines; blank ones and repeats are not left out.

    Where a column holds lists, as in a manifest, each caption is an item of its own, with the original at the same
    place of its list. Rows of a manifest that were not kept (`reason` is not empty) are passed over.

    Args:
        path: The file.
        caption_column: The column of the captions.
        original_column: The column of what they were translated from, or None.

    Raises:
        ValueError: A column is missing, the lists of a row differ in length, or the file is of another kind.
    """
    for number, row in enumerate(_rows(path), 1):
        if row.get("reason"):
            continue
        wanted = [caption_column, *([original_column] if original_column else [])]
        if missing := [name for name in wanted if name not in row]:
            raise ValueError(f"{path}, row {number} has no column {missing[0]!r}; it has: {', '.join(row)}")
        captions, *others = ([row[name]] if not isinstance(row[name], list) else row[name] for name in wanted)
        originals = others[0] if others else [""] * len(captions)
        if len(originals) != len(captions):
            raise ValueError(f"{path}, row {number} has {len(captions)} captions and {len(originals)} originals")
        for caption, original in zip(captions, originals, strict=True):
            caption, original = str(caption or "").strip(), str(original or "").strip()
            yield Item(_digest(f"{original}\0{caption}"), original, caption)


def draw(items: Iterator[Item], count: int, *, seed: int = 0) -> list[Item]:
    """Draw `count` different captions at random, without blank ones; the order of `items` does not matter.

    Raises:
        ValueError: There are fewer different captions.
    """
    # Those with the smallest hashes are drawn, in one pass, which holds no more than these and the ids of all.
    seen: set[str] = set()
    fresh = (item for item in items if item.caption and not (item.id in seen or seen.add(item.id)))
    drawn = heapq.nsmallest(count, fresh, key=lambda item: _digest(f"{seed}\0{item.id}"))
    if len(drawn) < count:
        raise ValueError(f"expected {count} different captions to draw from, found {len(drawn)}")
    return drawn


def write_sheet(items: Sequence[Item], path: Path) -> None:
    """Write a CSV with an empty column `mark`, and with the byte order mark that spreadsheets look for."""
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([COLUMNS, *((*item, "") for item in items)])


def read_marks(sheets: Sequence[Path]) -> tuple[list[Item], Array]:
    """Read the marks of filled-in sheets.

    Each rater may have a sheet with a column `mark`, or several raters share a sheet with a column each: every column
    is read whose name begins with "mark". The rows of a sheet may be in any order.

    Returns:
        The items of the first sheet, and the marks (items, raters) float64, NaN where there is none.

    Raises:
        ValueError: A sheet has other items than the first, an item twice, no column of marks, or a mark that is not a
            number; the message names the sheet and the item.
    """
    items: dict[str, Item] = {}
    columns: list[list[float]] = []
    for sheet in sheets:
        with sheet.open(encoding="utf-8-sig", newline="") as file:
            sample = file.readline()
            file.seek(0)
            rows = list(csv.DictReader(file, delimiter=";" if sample.count(";") > sample.count(",") else ","))
        found = {str(row.get("item")): row for row in rows}
        raters = [name for name in (rows[0] if rows else {}) if name and name.startswith("mark")]
        if not raters or len(found) < len(rows):
            raise ValueError(f"{sheet}: expected a column 'item' with each item once, and columns called 'mark...'")
        if not items:
            items = {id: Item(id, row.get("original") or "", row.get("caption") or "") for id, row in found.items()}
        if different := found.keys() ^ items.keys():
            raise ValueError(
                f"{sheet}: {len(different)} items differ from those of {sheets[0]}, such as {min(different)!r}"
            )
        columns += [[_mark(sheet, id, found[id][rater]) for id in items] for rater in raters]
    return list(items.values()), np.array(columns, np.float64).T


def _mark(sheet: Path, item: str, text: str | None) -> float:
    try:
        return float((text or "").strip().replace(",", ".") or "nan")
    except ValueError:
        raise ValueError(f"{sheet}: the mark {text!r} of item {item!r} is not a number") from None


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from csv.DictReader(file)
    elif path.suffix == ".jsonl":
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)
    elif path.suffix == ".parquet":
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(1024):
                yield from batch.to_pylist()
    else:
        raise ValueError(f"{path}: expected .csv, .jsonl or .parquet")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]

"""Collect what a report shows from the manifest of a build, in one pass over its rows."""

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipita_train.data.builder.output import MANIFEST

SHOWN = {
    *("source", "key", "path", "file", "width", "height", "problem", "captions", "caption_reasons", "reason"),
    *("original", "copy_of", "split", "record"),
}
BATCH = 8192
OTHER = "other rules"
# The steps of a build in their order, each with the beginnings of its reasons for dropping rows.
STAGES = {
    "download": ("download",),
    "photograph": ("the photograph",),
    "captions": ("no caption",),
    "evaluation sets": ("an evaluation set",),
    "copies": ("the same", "a copy"),
    "balance": ("of concepts",),
    OTHER: ("",),
}


def stage_of(reason: str) -> str:
    """Return the step of a build that drops rows for this reason."""
    return next(stage for stage, starts in STAGES.items() if reason.startswith(starts))


@dataclass(frozen=True)
class Quantity:
    """A number that each row or caption has, and the bins of its histogram.

    Attributes:
        title: Title of the histogram.
        columns: Columns that it is computed from.
        edges: Where the bins begin; the last one has no end.
        of_captions: Whether captions have it, and not rows.
    """

    title: str
    columns: tuple[str, ...]
    edges: tuple[float, ...]
    of_captions: bool = False


QUANTITIES = (
    Quantity("Shorter side of the photograph, pixels", ("width", "height"),
             (0, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072)),
    Quantity("Longer by shorter side", ("height", "width"), (1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2, 2.5, 3, 4, 5)),
    Quantity("Size of the file, KB", ("size",), (0, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000, 2000)),
    Quantity("Words of a caption", ("words",), tuple(range(0, 31, 2)), True),
    Quantity("Characters of a caption", ("characters",), tuple(range(0, 201, 10)), True),
    Quantity("Share of letters", ("letter_share",), tuple(i / 20 for i in range(8, 20)), True),
    Quantity("Probability of the language", ("language_probability",), tuple(i / 20 for i in range(20)), True),
    Quantity("Share of proper nouns", ("propn_share",), tuple(i / 10 for i in range(10)), True),
    Quantity("Cosine of photograph and caption", ("score",), tuple(i / 20 for i in range(-2, 13)), True),
)  # fmt: skip


@dataclass
class Histogram:
    """The numbers of kept and dropped rows or captions in each bin."""

    quantity: Quantity
    kept: np.ndarray
    dropped: np.ndarray


@dataclass
class Gathered:
    """The counts and example rows that a report shows."""

    rows: Counter[tuple[str, str]] = field(default_factory=Counter)  # source, reason
    splits: Counter[tuple[str, str]] = field(default_factory=Counter)  # source, split
    captions: Counter[tuple[str, str]] = field(
        default_factory=Counter
    )  # source, reason; "" also in rows that are dropped
    captions_kept: Counter[str] = field(default_factory=Counter)  # source
    languages: Counter[tuple[str, bool]] = field(default_factory=Counter)  # language, whether the caption is kept
    licences: Counter[tuple[str, str, bool]] = field(
        default_factory=Counter
    )  # license, source, whether the row is kept
    histograms: list[Histogram] = field(default_factory=list)
    kept: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # source to examples
    dropped: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # reason to examples
    caption_dropped: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    groups: list[list[dict[str, Any]]] = field(
        default_factory=list
    )  # each a row and its copies; the largest groups first
    group_sizes: Counter[int] = field(default_factory=Counter)


class _Sample:
    """Keep the rows with the smallest hashes: a random sample that does not depend on the order of reading."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._heaps: defaultdict[str, list[tuple[int, str, dict[str, Any]]]] = defaultdict(list)

    def offer(self, name: str, number: int, key: str, batch: pa.Table, row: int) -> None:
        """Keep a row of the batch if its hash is among the smallest so far."""
        heap = self._heaps[name]
        if len(heap) < self._size or -number > heap[0][0]:
            one = (-number, key, batch.slice(row, 1).to_pylist()[0])
            (heapq.heappush if len(heap) < self._size else heapq.heapreplace)(heap, one)

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Return the kept rows by name, those with the smallest hashes first."""
        return {name: [row for *_, row in sorted(heap, reverse=True)] for name, heap in self._heaps.items()}


def gather(out: Path, *, examples: int = 6, groups: int = 12, largest: int = 6) -> Gathered:
    """Read the manifest of a build.

    Args:
        out: The folder of the build.
        examples: How many rows are shown for each reason; twice as many are shown of the kept rows of a source.
        groups: How many groups of copies are shown; half of them are the largest groups.
        largest: How many rows of a group are shown.

    Raises:
        FileNotFoundError: There is no manifest.
    """
    path = out / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"no manifest at {path}: build the data set first, with clipita-train data build")
    found, copies = Gathered(), Counter[str]()
    samples = [_Sample(size) for size in (2 * examples, examples, examples)]
    names = set(pq.read_schema(path).names)
    for quantity in QUANTITIES:
        if names.issuperset(quantity.columns):
            bins = np.zeros(len(quantity.edges), np.int64)
            found.histograms.append(Histogram(quantity, bins, bins.copy()))
    for batch in _batches(path):
        _count(batch, found)
        for histogram in found.histograms:
            _fill(batch, histogram)
        copies.update(one for one in batch["copy_of"].to_pylist() if one is not None)
        _sample(batch, samples)
    found.kept, found.dropped, found.caption_dropped = (sample.rows() for sample in samples)
    found.group_sizes = Counter(count + 1 for count in copies.values())
    found.groups = _groups(path, _chosen(copies, groups), largest)
    return found


def _batches(path: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH):
            yield pa.Table.from_batches([batch])


def _count(batch: pa.Table, found: Gathered) -> None:
    columns = ("source", "reason", "split", "licence", "caption_reasons", "caption_language")
    for source, reason, split, licence, reasons, languages in zip(
        *(batch[name].to_pylist() for name in columns), strict=True
    ):
        found.rows[source, reason] += 1
        found.licences[licence, source, not reason] += 1
        if split is not None:
            found.splits[source, split] += 1
        for caption_reason, language in zip(reasons, languages, strict=True):
            kept = not reason and not caption_reason
            found.captions[source, caption_reason] += 1
            found.captions_kept[source] += kept
            found.languages[language, kept] += 1


def _fill(batch: pa.Table, histogram: Histogram) -> None:
    quantity = histogram.quantity
    columns = [batch[name].combine_chunks() for name in quantity.columns]
    kept = [not reason for reason in batch["reason"].to_pylist()]
    if quantity.of_captions:
        known = columns[0].is_valid().to_pylist()  # only some sources may have this column
        rows = zip(known, kept, batch["caption_reasons"].to_pylist(), strict=True)
        kept = [of_row and not reason for is_known, of_row, reasons in rows if is_known for reason in reasons]
        columns = [column.flatten() for column in columns]
    kept = np.array(kept, bool)
    numbers = [column.cast(pa.float64()).to_numpy(zero_copy_only=False) for column in columns]
    values = numbers[0] / 1000 if quantity.columns == ("size",) else numbers[0]
    if len(numbers) == 2:
        small, large = np.minimum(*numbers), np.maximum(*numbers)
        values = small if quantity.columns == ("width", "height") else large / np.maximum(small, 1)
    numeric = ~np.isnan(values)
    places = np.clip(np.searchsorted(quantity.edges, values[numeric], side="right") - 1, 0, None)
    for counts, chosen in ((histogram.kept, kept[numeric]), (histogram.dropped, ~kept[numeric])):
        counts += np.bincount(places[chosen], minlength=len(counts))


def _sample(batch: pa.Table, samples: Sequence[_Sample]) -> None:
    kept, dropped, caption_dropped = samples
    shown = batch.select([name for name in batch.column_names if name in SHOWN])
    columns = (batch[name].to_pylist() for name in ("source", "key", "reason", "caption_reasons"))
    for row, (source, key, reason, reasons) in enumerate(zip(*columns, strict=True)):
        id_ = f"{source}/{key}"
        number = int.from_bytes(hashlib.blake2b(id_.encode(), digest_size=8).digest(), "big")
        (dropped if reason else kept).offer(reason or source, number, id_, shown, row)
        for caption_reason in {one for one in reasons if one}:
            caption_dropped.offer(caption_reason, number, id_, shown, row)


def _chosen(copies: Counter[str], groups: int) -> list[str]:
    """Choose the largest groups, and some others at random."""
    by_size = sorted(copies, key=lambda id_: (-copies[id_], id_))
    rest = sorted(by_size[groups // 2 :], key=lambda id_: hashlib.blake2b(id_.encode()).digest())
    return by_size[: groups // 2] + rest[: groups - groups // 2]


def _groups(path: Path, leaders: Sequence[str], largest: int) -> list[list[dict[str, Any]]]:
    members: dict[str, list[dict[str, Any]]] = {leader: [] for leader in leaders}
    first: dict[str, dict[str, Any]] = {}
    for batch in _batches(path) if leaders else ():
        shown = batch.select([name for name in batch.column_names if name in SHOWN])
        columns = (batch[name].to_pylist() for name in ("source", "key", "copy_of"))
        for row, (source, key, leader) in enumerate(zip(*columns, strict=True)):
            if f"{source}/{key}" in members:
                first[f"{source}/{key}"] = shown.slice(row, 1).to_pylist()[0]
            if leader in members and len(members[leader]) < largest - 1:
                members[leader] += shown.slice(row, 1).to_pylist()
    return [[first[leader], *members[leader]] for leader in leaders if leader in first]

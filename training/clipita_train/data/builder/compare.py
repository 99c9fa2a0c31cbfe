"""Compare rows with one another: find copies within all sources, rows that evaluation sets have too, and the split.

Only rows and captions that no rule has dropped are compared, so that no row is dropped as a copy of a row that is
dropped itself. Of several copies the first is kept, in the order of the recipe's sources.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from clipita.system.arrays import Array
from clipita_train.data.builder.judge import NO_CAPTION
from clipita_train.data.builder.recipe import DataRecipe, Source
from clipita_train.data.builder.steps import nested
from clipita_train.data.builder.store import Chunk, row_id
from clipita_train.data.captions.balance import Matcher, balanced, counts, italian_concepts
from clipita_train.data.near_duplicates.groups import leaders, near_marked
from clipita_train.data.near_duplicates.min_hash import SIGNATURE, near_signatures, signature_keys
from clipita_train.data.near_duplicates.perceptual_hash import near_any, near_hashes

COMPARISON_VERSION = 1
SAME_KEY = "the same key"
EVALUATION_IMAGE = "an evaluation set has the photograph"
EVALUATION_CAPTION = "an evaluation set has the caption"
SAME_IMAGE = "the same photograph"
NEAR_IMAGE = "a copy of the photograph"
COPIES = "a caption of many photographs"
CONCEPTS = "of concepts with many rows"
TRAIN, VALIDATION = "train", "validation"


def compare(chunks: Sequence[Chunk], evaluation: Sequence[Chunk], recipe: DataRecipe) -> list[pa.Table]:
    """Compare the rows of all chunks.

    Args:
        chunks: Rows of the sources, with the columns of all steps.
        evaluation: Rows of the evaluation sets.
        recipe: Limits of the comparison.

    Returns:
        A table for each chunk: the final reasons why rows and captions are dropped, the row that each copy is a copy
            of, and the split of each row that is kept.
    """
    rows = _Rows(chunks)
    _same_keys(rows)
    _photographs_of(evaluation, rows, recipe)
    _captions_of(evaluation, rows, recipe)
    _copies(rows, recipe)
    _repeated(rows, recipe)
    if recipe.concept_cap is not None:
        _balance(rows, recipe.concept_cap)
    return rows.tables(recipe.validation_share)


class _Rows:
    """The columns of all chunks that rows are compared by, and the reasons found so far."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self.chunks = chunks
        names = ("source", "key", "sha256", "hash", "reason", "captions", "caption_reasons", "signature", "words")
        self.columns = [chunk.read(*names) for chunk in chunks]
        self.ids = np.array([row_id(row) for row in self._rows("source", "key")], object)
        self.reasons = np.array([row["reason"] for row in self._rows("reason")], object)
        digests = [row["sha256"] or "0" * 64 for row in self._rows("sha256")]
        self.digests = np.array([int(text[:16], 16) for text in digests], np.uint64)
        self.hashes = np.array([row["hash"] or 0 for row in self._rows("hash")], np.uint64)
        self.copy_of = np.full(len(self.ids), None, object)
        counts = [table["captions"].combine_chunks().value_lengths().to_numpy() for table in self.columns]
        self.row_of = np.repeat(np.arange(len(self.ids)), np.concatenate([np.zeros(0, np.int32), *counts]))
        self.caption_reasons = _flat(self.columns, "caption_reasons", object)
        self.words = _flat(self.columns, "words", np.int32)
        self.signatures = _signatures(self.columns)

    def _rows(self, *names: str) -> Any:
        return (row for table in self.columns for row in table.select(names).to_pylist())

    def kept(self) -> Array:
        """Return the numbers of the rows that are not dropped so far."""
        return np.flatnonzero(self.reasons == "")

    def kept_captions(self) -> Array:
        """Return the numbers of the captions that are not dropped so far, in rows that are not dropped either."""
        return np.flatnonzero((self.caption_reasons == "") & (self.reasons[self.row_of] == ""))

    def drop(self, numbers: Array, reason: str, copy_of: Array | None = None) -> None:
        """Drop rows for a reason; for copies, also note the rows that they are copies of."""
        self.reasons[numbers] = reason
        if copy_of is not None:
            self.copy_of[numbers] = self.ids[copy_of]

    def drop_captions(self, numbers: Array, reason: str) -> None:
        """Drop captions for a reason, and then the rows that have no caption left."""
        self.caption_reasons[numbers] = reason
        left = np.bincount(self.row_of[self.kept_captions()], minlength=len(self.ids)) > 0
        kept = self.kept()
        self.drop(kept[~left[kept]], NO_CAPTION)

    def tables(self, validation_share: float) -> list[pa.Table]:
        """Return the reasons, copies and splits of each chunk as a table."""
        validation = (self.digests >> np.uint64(32)).astype(np.float64) < validation_share * 2**32
        split = np.where(validation, VALIDATION, TRAIN).astype(object)
        split[self.reasons != ""] = None
        made, row, caption = [], 0, 0
        for table in self.columns:
            count = len(table["captions"].combine_chunks().flatten())
            reasons = nested(table, {"caption_reasons": pa.array(self.caption_reasons[caption : caption + count])})
            here = slice(row, row + len(table))
            further = {"reason": self.reasons, "copy_of": self.copy_of, "split": split}
            for name, values in further.items():
                reasons = reasons.append_column(name, pa.array(values[here], pa.string()))
            made.append(reasons)
            row, caption = row + len(table), caption + count
        return made


def _same_keys(rows: _Rows) -> None:
    """Drop rows whose key an earlier row has.

    Two files of the same name in different folders give the same keys, but the ids of records must be unique in a data
    set.
    """
    ids, first = rows.ids.tolist(), dict[str, int]()
    later = [row for row in rows.kept().tolist() if first.setdefault(ids[row], row) != row]
    rows.drop(np.array(later, np.int64), SAME_KEY)


def _photographs_of(evaluation: Sequence[Chunk], rows: _Rows, recipe: DataRecipe) -> None:
    found = [value for chunk in evaluation for value in chunk.read("hash")["hash"].to_pylist() if value is not None]
    kept = rows.kept()
    near = near_any(rows.hashes[kept], np.array(found, np.uint64), bits=recipe.near_bits)
    rows.drop(kept[near], EVALUATION_IMAGE)


def _captions_of(evaluation: Sequence[Chunk], rows: _Rows, recipe: DataRecipe) -> None:
    tables = [chunk.read("signature") for chunk in evaluation]
    theirs, ours = _signatures(tables), rows.kept_captions()
    ours = ours[rows.words[ours] >= recipe.evaluation_words]
    signatures = np.concatenate([theirs, rows.signatures[ours]])
    first, inverse = _distinct(signature_keys(signatures))
    pairs = near_signatures(signatures[first], share=recipe.near_share)
    near = near_marked(pairs, first < len(theirs))[inverse]
    rows.drop_captions(ours[near[len(theirs) :]], EVALUATION_CAPTION)


def _copies(rows: _Rows, recipe: DataRecipe) -> None:
    for values, reason in ((rows.digests, SAME_IMAGE), (rows.hashes, NEAR_IMAGE)):
        kept = rows.kept()
        first, inverse = _distinct(values[kept])
        later = np.flatnonzero(first[inverse] != np.arange(len(kept)))
        rows.drop(kept[later], reason, kept[first[inverse[later]]])
    kept = rows.kept()
    leader = leaders(len(kept), near_hashes(rows.hashes[kept], bits=recipe.near_bits))
    later = np.flatnonzero(leader != np.arange(len(kept)))
    rows.drop(kept[later], NEAR_IMAGE, kept[leader[later]])


def _repeated(rows: _Rows, recipe: DataRecipe) -> None:
    limits = [chunk.source.rules.copies if isinstance(chunk.source, Source) else None for chunk in rows.chunks]
    if all(limit is None for limit in limits):
        return
    ours = rows.kept_captions()
    signatures = rows.signatures[ours]
    first, inverse = _distinct(signature_keys(signatures))
    group = leaders(len(first), near_signatures(signatures[first], share=recipe.near_share))[inverse]
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    earlier = np.empty(len(ours), np.int64)
    earlier[order] = np.arange(len(ours)) - np.repeat(starts, np.diff(starts, append=len(ours)))
    most = np.array([np.iinfo(np.int64).max if limit is None else limit for limit in limits])
    of_row = np.repeat(most, [len(table) for table in rows.columns])
    rows.drop_captions(ours[earlier >= of_row[rows.row_of[ours]]], COPIES)


def _balance(rows: _Rows, cap: int) -> None:
    """Apply MetaCLIP's caps over the concepts of data/labels; rows that name none of them are kept."""
    captions: dict[int, list[str]] = {row: [] for row in rows.kept().tolist()}
    texts, row_of = _flat(rows.columns, "captions", object).tolist(), rows.row_of.tolist()
    for number in rows.kept_captions().tolist():
        captions[row_of[number]].append(texts[number])
    concepts = Matcher(italian_concepts())(list(captions.values()))
    kept = np.array(list(captions), np.int64)
    stays = balanced(rows.ids[kept].tolist(), concepts, counts(concepts), cap=cap, keep_unmatched=True)
    rows.drop(kept[~np.array(stays, bool)], CONCEPTS)


def _distinct(values: Array) -> tuple[Array, Array]:
    """Find the distinct values of an array.

    Returns:
        Where each distinct value stands first (U,), ascending; and for each value of the array (N,) its place among
            these.
    """
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return first[order], place[inverse]


def _flat(tables: Sequence[pa.Table], column: str, dtype: Any) -> Array:
    values = [table[column].combine_chunks().flatten().to_numpy(zero_copy_only=False) for table in tables]
    return np.concatenate([np.zeros(0, dtype), *values]).astype(dtype)


def _signatures(tables: Sequence[pa.Table]) -> Array:
    values = b"".join(data for table in tables for data in table["signature"].combine_chunks().flatten().to_pylist())
    return np.frombuffer(values, np.uint32).reshape(-1, SIGNATURE)

"""Steps that compute columns by models: the share of proper nouns, and how well captions fit their photographs."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

import clipita
from clipita_train.data.builder.steps import IMAGE_COLUMNS, Function, Step, flat, image_bytes, nested
from clipita_train.data.captions.cosines import cosines
from clipita_train.data.captions.proper_nouns import propn_share
from clipita_train.tagger.taggers import WEIGHTS


@dataclass(frozen=True)
class ProperNouns(Step):
    """Compute `clipita_train.data.captions.proper_nouns.propn_share` of each caption."""

    tagger: str
    name: ClassVar[str] = "propn"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("captions",)
    needs: ClassVar[tuple[str, ...]] = ()

    def seen(self, inputs: Sequence[Path]) -> str:
        """Return a hash of the weights for the tagger of this package; other taggers count by their names."""
        return _digest(WEIGHTS) if self.tagger == "clipita" else ""

    def load(self) -> Function:
        """Return the function."""
        return self._function

    def _function(self, table: pa.Table) -> pa.Table:
        shares = propn_share(flat(table), tagger=self.tagger)
        return nested(table, {"propn_share": pa.array(shares, pa.float32())})


@dataclass(frozen=True)
class Scores(Step):
    """Compute the cosine of each caption and its photograph by a model; NaN if the photograph cannot be read."""

    model: str
    root: Path = field(repr=False)
    out: Path = field(repr=False)
    name: ClassVar[str] = "scores"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("captions", "sha256", *IMAGE_COLUMNS)
    needs: ClassVar[tuple[str, ...]] = ("download", "images")

    def seen(self, inputs: Sequence[Path]) -> str:
        """Return the model's fingerprint, since the same name may mean another model later."""
        return _fingerprint(self.model)

    def load(self) -> Function:
        """Load the model, and return the function."""
        model = clipita.load(self.model, threads=1)  # one for each worker process
        return lambda table: self._function(table, model)

    def _function(self, table: pa.Table, model: clipita.Model) -> pa.Table:
        rows = table.to_pylist()
        images = [self._image(row) for row in rows]
        found = cosines(model, images, [row["captions"] for row in rows])
        values = [value for row in found for value in row]
        return nested(table, {"score": pa.array(values, pa.float32())})

    def _image(self, row: dict[str, Any]) -> bytes:
        """Return the bytes of a photograph; b"", which no decoder reads, where there are none."""
        try:
            return image_bytes(row, self.root, self.out) if row["sha256"] is not None else b""
        except OSError:
            return b""


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


@cache
def _fingerprint(model: str) -> str:
    return clipita.load(model, threads=1).fingerprint

"""Captions in another language -> Italian ones, as a step; what was translated once is kept whatever happens."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from clipita.errors import ClipitaError
from clipita_train.data.builder.steps import Function, Step, flat, nested
from clipita_train.data.pairs.engines import EngineSettings, open_engine
from clipita_train.data.pairs.translate import Engine, translate


class StoppedError(ClipitaError):
    """The engine translates no more for now, or may not for the budget. What it did is kept."""


@dataclass(frozen=True)
class Translate(Step):
    """The column `captions` anew, with "" for those that the engine failed at; before it was `original`.

    A chunk is written when the engine has been asked for all of it.
    """

    settings: EngineSettings
    cache: Path = field(repr=False)
    budget: int | None = field(repr=False)
    name: ClassVar[str] = "translate"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("captions",)
    needs: ClassVar[tuple[str, ...]] = ()

    def load(self) -> Function:
        engine = open_engine(self.settings)
        return lambda table: self._function(table, engine)

    def _function(self, table: pa.Table, engine: Engine) -> pa.Table:
        found = translate(flat(table), engine, self.cache, budget=self.budget)
        for status in (one.status for one in found):
            if status != "ok" and not status.startswith("failed"):
                raise StoppedError(
                    f"{engine.name}: {status}. What was translated is kept: build again to go on from there"
                )
        columns = {
            "captions": pa.array([one.text or "" for one in found], pa.string()),
            "translation": pa.array([one.status for one in found], pa.string()),
        }
        return nested(table, columns).append_column("original", table["captions"])

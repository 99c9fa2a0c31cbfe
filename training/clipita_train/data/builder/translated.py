"""Translate captions into Italian, as a step of a build.

Every translation is stored at once, so that none is paid for twice if the build is interrupted.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from clipita.errors import ClipitaError
from clipita_train.data.builder.steps import Function, Step, flat, nested
from clipita_train.data.pairs.engines import EngineSettings, open_engine
from clipita_train.data.pairs.translate import Engine, translate


class StoppedError(ClipitaError):
    """The engine stopped translating, or the budget is used up; translations so far are kept."""


@dataclass(frozen=True)
class Translate(Step):
    """Replace the column `captions` by translations, "" where one failed, and keep the old column as `original`.

    A chunk is written when all of its captions have been sent to the engine.
    """

    settings: EngineSettings
    cache: Path = field(repr=False)
    budget: int | None = field(repr=False)
    name: ClassVar[str] = "translate"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("captions",)
    needs: ClassVar[tuple[str, ...]] = ()

    def load(self) -> Function:
        """Open the engine, and return the function."""
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

"""Captions -> translations, each paid for once: kept by what they depend on, within a budget, and after a kill."""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol


class Failure(NamedTuple):
    """Why an engine has no translation of one text."""

    reason: str


class EngineStoppedError(Exception):
    """The engine translates no more for now. `status` is "quota" or "unavailable"; `done` is of the first texts."""

    def __init__(self, status: str, message: str, done: Sequence[str | Failure] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.done = list(done)


class Engine(Protocol):
    """What translates.

    Attributes:
        name: Also what a budget is kept of.
        identity: What a translation depends on besides the text: version, languages, settings, glossary.
        batch: Texts in one call of `translate`, at most.
        longest: Characters in one call, at most.
    """

    name: str
    identity: tuple[str, ...]
    batch: int
    longest: int

    def translate(self, texts: Sequence[str]) -> list[str | Failure]:
        """One for each text.

        Raises:
            EngineStoppedError: from one of them on none was translated, and others would not be either.
        """
        ...


@dataclass(frozen=True)
class Translated:
    """A translation; without one, `text` is None and the status says why.

    The status is "ok"; "budget", "quota: ..." or "unavailable: ..." where the work stopped before it; or "failed: ...".
    """

    text: str | None
    status: str


def translate(texts: Sequence[str], engine: Engine, cache: Path, *, budget: int | None = None) -> list[Translated]:
    """The translation of each text. What the cache has costs nothing; what is translated is in it at once.

    Args:
        texts: Those that are the same are translated once; space around them is not kept.
        engine: See engines.py.
        cache: An SQLite file, made at need; several processes may use it at once.
        budget: Characters of text that the cache may have had translated by this engine, over all runs. At the first
            text that does not fit the work stops, and another run goes on from there with a larger budget.
    """
    texts = [text.strip() for text in texts]
    known: dict[str, Translated] = {"": Translated("", "ok")}
    with closing(_Cache(cache, engine)) as kept:
        missing: list[str] = []
        for text in dict.fromkeys(texts):
            if text and (found := kept.get(text)) is not None:
                known[text] = Translated(found, "ok")
            elif text:
                missing.append(text)
        left = None if budget is None else budget - kept.spent()
        stopped = "budget"
        for batch in _batches(missing, engine, left):
            try:
                results, went_on = engine.translate(batch), True
            except EngineStoppedError as error:
                results, went_on = error.done, False
                stopped = f"{error.status}: {error}"
            kept.add(batch, results)
            known |= {text: _translated(result) for text, result in zip(batch, results, strict=went_on)}
            if not went_on:
                break
    return [known.get(text) or Translated(None, stopped) for text in texts]


def _translated(result: str | Failure) -> Translated:
    return Translated(None, f"failed: {result.reason}") if isinstance(result, Failure) else Translated(result, "ok")


def _batches(texts: Sequence[str], engine: Engine, left: int | None) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        if batch and (len(batch) == engine.batch or characters + len(text) > engine.longest):
            yield batch
            batch, characters = [], 0
        if left is not None:
            left -= len(text)
            if left < 0:
                break
        batch.append(text)
        characters += len(text)
    if batch:
        yield batch


class _Cache:
    """Translations by a hash of all that they depend on. The texts are beside them: they may have cost money."""

    def __init__(self, path: Path, engine: Engine) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._engine = engine
        self._file = sqlite3.connect(path, timeout=60)
        self._file.execute("PRAGMA journal_mode = WAL")  # readers and a writer at once
        self._file.execute(
            "CREATE TABLE IF NOT EXISTS translations (key BLOB PRIMARY KEY, engine TEXT, identity TEXT, text TEXT, "
            "translation TEXT) WITHOUT ROWID"
        )

    def get(self, text: str) -> str | None:
        found = self._file.execute("SELECT translation FROM translations WHERE key = ?", (self._key(text),)).fetchone()
        return None if found is None else found[0]

    def spent(self) -> int:
        """Characters of the texts that this engine translated, in whatever version."""
        query = "SELECT coalesce(sum(length(text)), 0) FROM translations WHERE engine = ?"
        return self._file.execute(query, (self._engine.name,)).fetchone()[0]

    def add(self, texts: Sequence[str], results: Sequence[str | Failure]) -> None:
        rows = [
            (self._key(text), self._engine.name, json.dumps(self._engine.identity), text, result)
            for text, result in zip(texts, results, strict=False)  # it may have stopped in between
            if isinstance(result, str)
        ]
        with self._file:
            self._file.executemany("INSERT OR REPLACE INTO translations VALUES (?, ?, ?, ?, ?)", rows)

    def _key(self, text: str) -> bytes:
        parts = [self._engine.name, *self._engine.identity, text]
        return hashlib.sha256(json.dumps(parts).encode()).digest()

    def close(self) -> None:
        self._file.close()

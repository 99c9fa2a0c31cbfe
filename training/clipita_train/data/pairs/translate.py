"""Translate captions within a budget, and store every translation at once, so that none is paid for twice."""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol


class Failure(NamedTuple):
    """The reason why an engine has no translation of a text."""

    reason: str


class EngineStoppedError(Exception):
    """The engine stopped translating for now.

    Attributes:
        status: "quota" or "unavailable".
        done: Results for the first of the texts.
    """

    def __init__(self, status: str, message: str, done: Sequence[str | Failure] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.done = list(done)


class Engine(Protocol):
    """A service or a model that translates texts.

    Attributes:
        name: Name of the engine; a budget counts the characters of this name.
        identity: What a translation depends on beside the text: version, languages, settings, glossary.
        batch: Maximum number of texts in one call of `translate`.
        longest: Maximum number of characters in one call.
    """

    name: str
    identity: tuple[str, ...]
    batch: int
    longest: int

    def translate(self, texts: Sequence[str]) -> list[str | Failure]:
        """Return a translation, or a failure, for each text.

        Raises:
            EngineStoppedError: The engine stopped before a text; the error has the results before it.
        """
        ...


@dataclass(frozen=True)
class Translated:
    """A translation, or the reason why there is none.

    Attributes:
        text: The translation, or None.
        status: "ok"; "budget", "quota: ..." or "unavailable: ..." where the work stopped before the text; or "failed:
            ...".
    """

    text: str | None
    status: str


def translate(texts: Sequence[str], engine: Engine, cache: Path, *, budget: int | None = None) -> list[Translated]:
    """Translate each text. What is in the cache costs nothing, and new translations are stored there at once.

    Args:
        texts: Equal texts are translated once; spaces around them are dropped.
        engine: See engines.py.
        cache: An SQLite file, made if missing; several processes may use it at the same time.
        budget: Maximum number of characters that the engine translates for this cache, over all runs. The work stops at
            the first text that does not fit; another run with a larger budget goes on from there.
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
    """Translations, by a hash of all that they depend on.

    The texts are stored too, since translations may have cost money.
    """

    def __init__(self, path: Path, engine: Engine) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._engine = engine
        self._file = sqlite3.connect(path, timeout=60)
        self._file.execute("PRAGMA journal_mode = WAL")  # allows readers beside a writer
        self._file.execute(
            "CREATE TABLE IF NOT EXISTS translations (key BLOB PRIMARY KEY, engine TEXT, identity TEXT, text TEXT, "
            "translation TEXT) WITHOUT ROWID"
        )

    def get(self, text: str) -> str | None:
        found = self._file.execute("SELECT translation FROM translations WHERE key = ?", (self._key(text),)).fetchone()
        return None if found is None else found[0]

    def spent(self) -> int:
        """Count the characters of the texts that this engine has translated, in any version."""
        query = "SELECT coalesce(sum(length(text)), 0) FROM translations WHERE engine = ?"
        return self._file.execute(query, (self._engine.name,)).fetchone()[0]

    def add(self, texts: Sequence[str], results: Sequence[str | Failure]) -> None:
        rows = [
            (self._key(text), self._engine.name, json.dumps(self._engine.identity), text, result)
            for text, result in zip(texts, results, strict=False)  # there are fewer results if the engine has stopped
            if isinstance(result, str)
        ]
        with self._file:
            self._file.executemany("INSERT OR REPLACE INTO translations VALUES (?, ?, ?, ?, ?)", rows)

    def _key(self, text: str) -> bytes:
        parts = [self._engine.name, *self._engine.identity, text]
        return hashlib.sha256(json.dumps(parts).encode()).digest()

    def close(self) -> None:
        self._file.close()

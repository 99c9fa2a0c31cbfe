"""Compute embeddings of a model and keep them on disk, so that a second table takes seconds."""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import clipita
from clipita.system.arrays import Array
from clipita_train.towers.features import cached_rows


@contextmanager
def cache_folder(cache: Path | None) -> Iterator[Path]:
    """Give the folder `cache`, or a temporary one that is removed when the block ends."""
    if cache is not None:
        yield cache
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


def embed_images(model: clipita.Model, paths: Sequence[Path], cache: Path) -> tuple[Array, Array]:
    """Compute the embeddings of photographs, or read them from the cache.

    They are kept by the model's fingerprint and each file's path, size and time of change.

    Returns:
        (N, E) float32, zeros where a photograph cannot be read; and (N,) bool, which photographs could be read.
    """
    keys = [_identity(path) for path in paths]  # links to the same file have the same key
    found = dict(zip(keys, paths, strict=True))

    def encode(some: Sequence[str]) -> Array:
        rows = np.zeros((len(some), model.embed_dim + 1), np.float32)  # the last column says whether it could be read
        for i, result in enumerate(model.iter_encode_image(found[key] for key in some)):
            if result.embedding is not None:
                rows[i, :-1], rows[i, -1] = result.embedding, 1
        return rows

    rows = _cached(model, keys, cache / "photographs", encode, model.embed_dim + 1)
    return rows[:, :-1], rows[:, -1] > 0


def embed_texts(model: clipita.Model, texts: Sequence[str], cache: Path) -> Array:
    """Compute the embeddings (N, E) float32 of texts, or read them from the cache, by the model's fingerprint."""
    return _cached(model, list(texts), cache / "captions", model.encode_text, model.embed_dim)


def _cached(
    model: clipita.Model, keys: list[str], folder: Path, encode: Callable[[Sequence[str]], Array], width: int
) -> Array:
    return cached_rows(keys, model.fingerprint, folder, encode, width, folder.name, dtype=np.float32)


def _identity(path: Path) -> str:
    stat = path.stat()
    return json.dumps([str(path.resolve()), stat.st_size, stat.st_mtime_ns])

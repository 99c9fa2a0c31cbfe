"""Keep vectors of labels on disk, so that a long list of labels is embedded once on a machine, not in every process."""

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from clipita.system.arrays import Array, FloatArray
from clipita.system.files import replacing

FEW = 32  # labels: up to this many are embedded in less time than it takes to be worth a file
MAX_FILE = 32_000_000  # bytes, 15,500 labels at a width of 512
MAX_FILES = 4  # of different models; the ones written last are kept
_SUFFIX = ".labels"
# A part of every key. Raise it when the same phrase, templates and weights come to give other vectors, as they would by
# other rules of spelling.
_FORMAT = "1"
_DIGEST = hashlib.sha256().digest_size


class LabelStore:
    """A file of vectors by phrase and templates. It holds hashes of them and not the words.

    The file is a SHA-256 of all that follows, then rows of a 16-byte key and E float32. One that is damaged counts as
    empty and is written anew; one that cannot be written is done without. Of two processes that write it at once, the
    later wins.

    Args:
        folder: Gives the folder of the file, which is made when it is needed.
        name: The file's name without its ending. It must name all that vectors depend on besides phrases and templates.
        width: The width E of the vectors.
    """

    def __init__(self, folder: Callable[[], Path], name: str, width: int) -> None:
        self._folder, self._name = folder, name
        self._row = np.dtype([("key", "V16"), ("vector", "<f4", (width,))])

    def vectors(
        self, phrases: Sequence[str], templates: Sequence[str], embed: Callable[[list[str]], FloatArray]
    ) -> FloatArray:
        """Return the vectors of phrases, and embed and keep those that the file does not have.

        Args:
            phrases: K phrases, with their articles.
            templates: The sentences that they are put into.
            embed: Embeds phrases in these templates, (N, E).

        Returns:
            (K, E) float32.
        """
        if len(phrases) <= FEW:
            return embed(list(phrases))
        path = self._folder() / f"{self._name}{_SUFFIX}"
        keys = [_key(phrase, templates) for phrase in phrases]
        kept = self._read(path)
        known: dict[bytes, FloatArray] = dict(zip(kept["key"].tolist(), kept["vector"], strict=True))
        missing = [index for index, key in enumerate(keys) if key not in known]
        if missing:
            found = embed([phrases[index] for index in missing])
            known |= {keys[index]: vector for index, vector in zip(missing, found, strict=True)}
        vectors = np.stack([known.pop(key) for key in keys])
        if missing:
            # Those just used go last, and the file is cut at its beginning.
            rows = np.empty(len(known) + len(keys), self._row)
            rows["key"], rows["vector"] = [*known, *keys], [*known.values(), *vectors]
            _write(path, rows[-(MAX_FILE // self._row.itemsize) :])
        return vectors

    def _read(self, path: Path) -> Array:
        """Return the rows of the file; none if it is missing, damaged or larger than any that is written here."""
        data = b""
        with contextlib.suppress(OSError):
            if path.stat().st_size <= MAX_FILE + _DIGEST:
                data = path.read_bytes()
        rows = data[_DIGEST:]
        if len(rows) % self._row.itemsize or hashlib.sha256(rows).digest() != data[:_DIGEST]:
            rows = b""
        return np.frombuffer(rows, self._row)


def _key(phrase: str, templates: Sequence[str]) -> bytes:
    # No text holds NUL: `check_text` refuses it.
    return hashlib.blake2b("\0".join((_FORMAT, *templates, phrase)).encode(), digest_size=16).digest()


def _write(path: Path, rows: Array) -> None:
    """Replace the file, and remove the oldest of its folder beyond `MAX_FILES`, where the system lets us."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        data = rows.tobytes()
        with replacing(path) as part:
            part.write_bytes(hashlib.sha256(data).digest() + data)
        files = sorted(path.parent.glob(f"*{_SUFFIX}"), key=lambda file: file.stat().st_mtime_ns)
        for file in files[:-MAX_FILES]:
            file.unlink()

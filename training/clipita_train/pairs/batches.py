"""Make batches of pairs with Grain: decoded and tokenized in threads, with the same result for any number of threads.

The contents of each position in the stream depend on the seed alone. Sources are shuffled anew in every epoch and mixed
in fixed proportions, each process takes every n-th position, and what cannot be read is skipped. The state of an
iterator is a single number. Threads, instead of processes, are enough for decoding, since Pillow and the tokenizer
release Python's lock.
"""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from clipita.errors import ImageError, TextError
from clipita.images.pixels import Preprocessing, load_pixels
from clipita.text.tokenizer import Tokenizer
from clipita_train.data.captions.draw import caption_at
from clipita_train.data.captions.sides import names_a_side
from clipita_train.engine.loop import Batches
from clipita_train.pairs.files import Pair, Part

BatchRow = dict[str, Any]  # name of an entry to the value of one example
STAGE = 1 << 20  # more than the epochs of any stage, so that views of different stages differ


class UnreadableLog:
    """A log of what cannot be read, which raises an error if that is too much.

    Each entry is written once to a file, and passed once to `tell`.
    """

    def __init__(self, path: Path, tell: Callable[[str], object] = print) -> None:
        self._path, self._tell, self._lock = path, tell, threading.Lock()
        self._known = set(path.read_text("utf-8").splitlines()) if path.exists() else set[str]()
        self._limit: float = math.inf

    def allow(self, pairs: int) -> None:
        """Raise an error if, now or later, more than 20 and more than a twentieth of `pairs` pairs are unreadable."""
        self._limit = max(20, pairs // 20)
        self._check()

    def __call__(self, place: str, reason: str) -> None:
        """Log a pair that cannot be read.

        Raises:
            ValueError: Too many pairs cannot be read.
        """
        line = f"{place}\t{reason}".replace("\n", " ")
        with self._lock:
            if line in self._known:
                return
            self._known.add(line)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            self._tell(f"left out: {place}: {reason}")
            self._check()

    def _check(self) -> None:
        if len(self._known) > self._limit:
            raise ValueError(
                f"{len(self._known)} pairs cannot be read, which is too many to go on; they are named in "
                f"{str(self._path)!r}. Repair them, or take them out of their lists"
            )


class RowMaker:
    """Makes rows of batches from pairs.

    Args:
        image: (number, pair) to an entry of a row, {"pixels": (S, S, 3) uint8} or {"image_features": (D,)}.
        text: Caption to entries of a row, {"input_ids": (L,), ...} or {"text_features": (D,)}.
        left_out: Called with the name of a pair that cannot be read, and the reason.
        seed: Seed of the choice of captions.
        validates: Take the first caption, and mark rows with "mask".
        may_flip: Add "may_flip" to each row, False where the caption says left or right.
    """

    def __init__(
        self,
        image: Callable[[int, Pair], BatchRow],
        text: Callable[[str], BatchRow],
        left_out: Callable[[str, str], None],
        *,
        seed: int,
        validates: bool,
        may_flip: bool,
    ) -> None:
        self._image, self._text, self._left_out = image, text, left_out
        self._seed, self._validates, self._may_flip = seed, validates, may_flip

    def __call__(self, drawn: tuple[int, int, Pair]) -> BatchRow | None:
        """Make a row from (number, view, pair); return None if the pair cannot be read."""
        number, view, pair = drawn
        caption = caption_at(pair.captions, id=number, step=None if self._validates else view, seed=self._seed)
        try:
            row = {"ids": pair.key, "number": np.int32(number), **self._image(number, pair), **self._text(caption)}
        except (ImageError, TextError) as error:
            self._left_out(pair.key, str(error))
            return None
        if self._may_flip:
            row["may_flip"] = np.bool_(not names_a_side(caption))
        return row | ({"mask": np.True_} if self._validates else {"view": np.int32(view)})


def pixels_of(preprocessing: Preprocessing) -> Callable[[int, Pair], BatchRow]:
    """Return a function that decodes and resizes a photograph as for serving."""
    return lambda _, pair: {"pixels": load_pixels(pair.image, preprocessing, name=pair.key)}


def tokens_of(tokenizer: Tokenizer) -> Callable[[str], BatchRow]:
    """Return a function that tokenizes a caption; one beyond the tokenizer's limit is cut, and keeps its end token."""

    def tokens(caption: str) -> BatchRow:
        (batch,) = tokenizer.encode([caption], on_truncate="ignore")
        return {"input_ids": batch.input_ids[0], "attention_mask": batch.attention_mask[0]}

    return tokens


class PairBatches:
    """Batches for `clipita_train.engine.loop.fit`, with the number of batches of an epoch as `len`."""

    def __init__(self, batches: Batches, length: int) -> None:
        self._batches, self._length = batches, length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> "PairBatches":
        return self

    def __next__(self) -> BatchRow:
        return next(self._batches)

    def get_state(self) -> Any:
        """Return the position in the data."""
        return self._batches.get_state()

    def set_state(self, state: Any) -> None:
        """Go to a position in the data."""
        self._batches.set_state(state)


def training_batches(
    parts: Sequence[Part],
    weights: Sequence[float],
    rows: RowMaker,
    *,
    batch_size: int,
    lengths: tuple[int, ...],
    seed: int,
    stage: int,
    threads: int,
    process: tuple[int, int] = (0, 1),
) -> PairBatches:
    """Return endless batches. An epoch sees every pair once, or more or less often by `weights`.

    Args:
        parts: The pairs of each source.
        weights: How often the pairs of each source are drawn, relative to those of others.
        rows: Makes rows from pairs.
        batch_size: Size of a batch, over all processes.
        lengths: Texts are padded to the shortest of these lengths that holds the longest text of the batch.
        seed: Seed of the order, which also depends on the stage.
        stage: Index of the stage.
        threads: Number of threads that decode and tokenize; 0 does so in the calling thread.
        process: Index of this process, and the number of processes.

    Raises:
        ValueError: There are no pairs, or the batch does not divide by the processes.
    """
    import grain  # here, since it takes a second

    own_size = _own(batch_size, process)
    if not sum(map(len, parts)):
        raise ValueError("no pair is left to train on: check the sources and data.validation_share")
    order = int(np.random.SeedSequence((seed, stage)).generate_state(1)[0])
    shuffled = [
        grain.MapDataset.source(part)
        .map_with_index(partial(_viewed, size=len(part), stage=stage))
        .shuffle(seed=order + index)
        .repeat()
        for index, part in enumerate(parts)
        if len(part)
    ]
    shares = [weight * len(part) for weight, part in zip(weights, parts, strict=True) if len(part)]
    mixed = grain.MapDataset.mix(shuffled, [share / sum(shares) for share in shares])
    stream: Any = mixed[process[0] :: process[1]].map(rows)  # Grain skips rows that are None
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * own_size if threads else 0)
    collate = partial(_collate, lengths=lengths)
    batches = stream.to_iter_dataset(options).batch(own_size, drop_remainder=True, batch_fn=collate)
    iterator: Any = iter(batches)  # it has `get_state`, which the type Iterator lacks
    return PairBatches(iterator, max(1, sum(map(len, parts)) // batch_size))


def validation_batches(
    parts: Sequence[Part],
    rows: RowMaker,
    *,
    batch_size: int,
    lengths: tuple[int, ...],
    threads: int,
    process: tuple[int, int] = (0, 1),
) -> Iterator[BatchRow]:
    """Yield all pairs once, in order.

    Blank rows, with "mask" False, take the place of unreadable pairs and fill up the last batch.

    Args:
        parts: The pairs of each source.
        rows: Makes rows from pairs.
        batch_size: Size of a batch, over all processes.
        lengths: As for `training_batches`.
        threads: As for `training_batches`.
        process: Index of this process, and the number of processes.

    Raises:
        ValueError: There are no pairs, or the batch does not divide by the processes.
    """
    import grain

    own_size = _own(batch_size, process)
    pairs = [(part, index) for part in parts for index in range(len(part))]
    if not pairs:
        raise ValueError("no pair is left to validate on: raise data.validation_share")
    count = -(-len(pairs) // batch_size) * batch_size
    blank: list[BatchRow] = []

    def row(position: int) -> BatchRow:
        if position < len(pairs):
            part, index = pairs[position]
            number, pair = part[index]
            if (made := rows((number, 0, pair))) is not None:
                return made
        return {"ids": "", "mask": np.False_}

    stream = grain.MapDataset.range(count)[process[0] :: process[1]].map(row)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * own_size if threads else 0)

    def collate(made: Sequence[BatchRow]) -> BatchRow:
        if not blank:
            blank.append(_blank(next((row for row in made if row["mask"]), None)))
        return _collate([row if row["mask"] else blank[0] | row for row in made], lengths=lengths)

    yield from stream.to_iter_dataset(options).batch(own_size, batch_fn=collate)


def _own(batch_size: int, process: tuple[int, int]) -> int:
    if batch_size % process[1]:
        raise ValueError(f"a batch of {batch_size} does not divide by {process[1]} processes")
    return batch_size // process[1]


def _viewed(index: int, numbered: tuple[int, Pair], *, size: int, stage: int) -> tuple[int, int, Pair]:
    """Return (number, view, pair); an index beyond the size of the part belongs to a later epoch."""
    return numbered[0], stage * STAGE + index // size, numbered[1]


def _blank(like: BatchRow | None) -> BatchRow:
    """Return a blank row like the others. Its text has one token, since the mean over no tokens is not a number."""
    if like is None:
        raise ValueError("no pair of the first batch of validation can be read")
    blank = {name: np.zeros_like(value) for name, value in like.items() if name != "ids"}
    return blank | ({"attention_mask": np.ones_like(like["attention_mask"])} if "attention_mask" in like else {})


def _collate(rows: Sequence[BatchRow], *, lengths: tuple[int, ...]) -> BatchRow:
    batch: BatchRow = {"ids": np.array([row["ids"] for row in rows])}
    for name in rows[0]:
        if name in ("input_ids", "attention_mask"):
            longest = max(len(row[name]) for row in rows)
            width = next((length for length in lengths if length >= longest), longest)
            batch[name] = np.stack([np.pad(row[name], (0, width - len(row[name]))) for row in rows]).astype(np.int32)
        elif name != "ids":
            batch[name] = np.stack([row[name] for row in rows])
    return batch

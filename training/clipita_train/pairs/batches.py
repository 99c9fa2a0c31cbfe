"""Batches of pairs by Grain: decoded and tokenised in threads, and the same whatever the number of threads.

What a position of the stream holds depends on the seed alone: sources are shuffled anew every epoch and mixed in fixed
proportions, each process takes every n-th position, and what cannot be read is skipped. The state of an iterator is one
number. Threads do for decoding, since Pillow and the tokenizer leave Python's lock while they work.
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

BatchRow = dict[str, Any]
STAGE = 1 << 20  # epochs; views of one stage are told from those of the next by it


class UnreadableLog:
    """What cannot be read: each named once, in a file and by `tell`, and an error if it is more than some mishaps."""

    def __init__(self, path: Path, tell: Callable[[str], object] = print) -> None:
        self._path, self._tell, self._lock = path, tell, threading.Lock()
        self._known = set(path.read_text("utf-8").splitlines()) if path.exists() else set[str]()
        self._limit: float = math.inf

    def allow(self, pairs: int) -> None:
        """From now on it is an error if more than a twentieth of so many pairs, and more than 20, are left out."""
        self._limit = max(20, pairs // 20)
        self._check()

    def __call__(self, place: str, reason: str) -> None:
        """Raises ValueError: too many are left out."""
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
                f"{len(self._known)} pairs cannot be read, which is more than mishaps; they are named in "
                f"{str(self._path)!r}. Mend them, or take them out of their lists"
            )


class RowMaker:
    """Pairs to rows of batches.

    Args:
        image: a pair and its number to an entry of a row, ("pixels", (S, S, 3) uint8) or ("image_features", (D,)).
        text: a caption to entries of a row, {"input_ids": (L,), ...} or {"text_features": (D,)}.
        left_out: is told what cannot be read.
        seed: of the choice of captions.
        validates: takes the first caption, and gives a blank row with "mask" False instead of nothing.
        may_flip: say of each row whether its photograph may be mirrored, which no caption of sides allows.
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
        """(number, view, pair) to a row; None where it cannot be read."""
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
    """Photographs, decoded and resized as for serving."""
    return lambda _, pair: {"pixels": load_pixels(pair.image, preprocessing, name=pair.key)}


def tokens_of(tokenizer: Tokenizer) -> Callable[[str], BatchRow]:
    """Captions as ids; what is longer than the tokenizer's limit is cut and keeps its end."""

    def tokens(caption: str) -> BatchRow:
        (batch,) = tokenizer.encode([caption], on_truncate="ignore")
        return {"input_ids": batch.input_ids[0], "attention_mask": batch.attention_mask[0]}

    return tokens


class PairBatches:
    """A Grain iterator of batches as `clipita_train.engine.loop.fit` takes them; `len` is the batches of an epoch."""

    def __init__(self, batches: Batches, length: int) -> None:
        self._batches, self._length = batches, length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> "PairBatches":
        return self

    def __next__(self) -> BatchRow:
        return next(self._batches)

    def get_state(self) -> Any:
        return self._batches.get_state()

    def set_state(self, state: Any) -> None:
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
    """Endless batches: an epoch sees every pair once, or `weights` as often.

    Args:
        parts: the pairs of each source.
        weights: how often the pairs of each source are drawn, relative to those of others.
        rows: what makes rows of them.
        batch_size: of all processes together.
        lengths: to which texts are padded: the shortest of these that holds the longest of a batch.
        seed: of the order. Another stage has another one.
        stage: index of the stage.
        threads: that decode and tokenise; 0 does so in the thread that asks.
        process: index of this process, and how many there are.

    Raises:
        ValueError: there are no pairs, or the batch does not divide by the processes.
    """
    import grain  # takes a second

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
    stream: Any = mixed[process[0] :: process[1]].map(rows)  # Grain passes over what is None
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * own_size if threads else 0)
    collate = partial(_collate, lengths=lengths)
    batches = stream.to_iter_dataset(options).batch(own_size, drop_remainder=True, batch_fn=collate)
    iterator: Any = iter(batches)  # with `get_state`, which no type of Python says
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
    """All pairs once, in order, the last batch filled up; "mask" is False for what fills it and cannot be read."""
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
    """(number, view, pair): an index beyond the size is that of a later epoch."""
    return numbered[0], stage * STAGE + index // size, numbered[1]


def _blank(like: BatchRow | None) -> BatchRow:
    """A row that looks like the others; its text has one token, since a mean over none is no number."""
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

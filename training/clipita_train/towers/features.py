"""Compute pooled features of locked towers once, with ONNX Runtime, and keep them on disk.

The features of a locked tower never change. So the stages that train projections read arrays instead of pixels and
tokens, and hours of running towers become minutes of matrix products.
"""

import hashlib
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from safetensors.numpy import save
from tqdm import tqdm

from clipita.backends.onnx import images_per_run, session_options
from clipita.bundles.bundle import WEIGHTS
from clipita.convert.graph.towers import image_end_graph, image_graph, text_graph
from clipita.convert.weights.safetensors_file import StoredWeights
from clipita.errors import ImageError
from clipita.images.pixels import load_pixels
from clipita.system.arrays import Array
from clipita.system.cpus import usable_cpus
from clipita.text.tokenizer import TextBatch, Tokenizer
from clipita.towers.config import DualConfig
from clipita_train.engine.files import written_whole

_MAPS = 32  # in one run
CHUNK = 1024  # examples in a file, the most that an interrupted run loses


class LockedTower:
    """A tower without its projection, or only its first blocks, on ONNX Runtime.

    Attributes:
        fingerprint: A hash of everything that decides the features.
        shape: Shape of the features of one input: (D,), or (H, W, C) for maps.
    """

    def __init__(self, graph: onnx.ModelProto, weights: bytes, fingerprint: str, threads: int | None = None) -> None:
        options = session_options(threads)
        options.add_external_initializers_from_files_in_memory([WEIGHTS], [weights], [len(weights)])
        self._session = onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self.fingerprint = fingerprint
        self.shape = tuple[int, ...](self._session.get_outputs()[0].shape[1:])

    def __call__(self, **inputs: Array) -> Array:
        """Compute the features of a batch from the inputs of its graph."""
        return np.asarray(self._session.run(None, inputs)[0])


def locked_image_tower(config: DualConfig, stored: Mapping[str, Array], *, blocks: int | None = None) -> LockedTower:
    """Make a locked image tower, which computes pooled features (B, D).

    Args:
        config: The architecture.
        stored: Weights as `clipita.convert.quantize` stores them, with batch norms folded.
        blocks: If given, take only so many of the first blocks, which compute maps (B, H, W, C).
    """
    weights = _saved(stored)
    graph = image_graph(config, StoredWeights.from_bytes(WEIGHTS, weights), pooled=True, blocks=blocks)
    cut = [] if blocks is None else [f"{blocks} blocks"]
    return LockedTower(graph, weights, _digest(weights, repr(config.image), repr(config.preprocessing), *cut))


def locked_image_end(config: DualConfig, stored: Mapping[str, Array], first: int, before: LockedTower) -> LockedTower:
    """Make the end of a locked image tower, which computes pooled features (B, D) from maps (B, H, W, C).

    Args:
        config: The architecture.
        stored: As for `locked_image_tower`.
        first: The number of its first block.
        before: Computes the maps; the fingerprint covers it too.
    """
    weights = _saved(stored)
    graph = image_end_graph(config, StoredWeights.from_bytes(WEIGHTS, weights), first)
    return LockedTower(graph, weights, _digest(weights, repr(config.image), f"from {first}", before.fingerprint))


def locked_text_tower(config: DualConfig, stored: Mapping[str, Array], tokenizer: Tokenizer) -> LockedTower:
    """Make a locked text tower, which computes pooled features (B, D), each run on one CPU.

    The fingerprint also covers the settings of the tokenizer.

    Args:
        config: The architecture.
        stored: Weights as `clipita.convert.quantize` stores them.
        tokenizer: The tokenizer of the texts.
    """
    weights = _saved(stored)
    graph = text_graph(config, StoredWeights.from_bytes(WEIGHTS, weights), pooled=True)
    return LockedTower(graph, weights, _digest(weights, repr(config.text), repr(tokenizer.config)), threads=1)


def image_features(
    tower: LockedTower,
    keys: Sequence[Path | str],
    config: DualConfig,
    folder: Path,
    *,
    opened: Callable[[str], Path | bytes] = Path,
    batch_size: int | None = None,
) -> tuple[Array, Array]:
    """Compute the features of photographs, or read them from `folder`.

    Args:
        tower: The tower.
        keys: Names of the photographs: their paths, or whatever `opened` takes.
        config: Says how pixels are prepared.
        folder: Keeps the features.
        opened: Turns a key into a file or its contents.
        batch_size: Photographs in one run of the tower; None takes the default of `clipita.backends.onnx`.

    Returns:
        (N, *shape) float16; and (N,) bool, which photographs could be read. The others are named on the progress bar,
            and their features are zeros.
    """
    width = math.prod(tower.shape)
    if batch_size is None:
        batch_size = images_per_run(config.image_fields()["kind"], config.preprocessing.image_size)

    def encode(chunk: Sequence[str]) -> Array:
        rows = np.zeros((len(chunk), width + 1), np.float16)  # the last column says whether it could be read
        for start in range(0, len(chunk), batch_size):
            pixels, places = [], []
            for i, key in enumerate(chunk[start : start + batch_size], start):
                try:
                    pixels.append(load_pixels(opened(key), config.preprocessing, name=repr(key)))
                    places.append(i)
                except ImageError as error:
                    tqdm.write(f"left out: {error}")
            if pixels:
                rows[places, :-1] = tower(pixels=np.stack(pixels)).reshape(len(pixels), width)
                rows[places, -1] = 1
        return rows

    rows = cached_rows([str(key) for key in keys], tower.fingerprint, folder, encode, width + 1, "photographs")
    return rows[:, :-1].reshape(-1, *tower.shape), rows[:, -1] > 0


def features_of_maps(
    before: LockedTower,
    end: LockedTower,
    keys: Sequence[Path | str],
    config: DualConfig,
    folder: Path,
    maps_folder: Path,
) -> tuple[Array, Array]:
    """Compute the features of photographs from the maps of a tower's first blocks, or read either from its folder.

    Where the maps are kept already, a tower whose end has been trained takes a sixth of the time of the whole tower.

    Args:
        before: The first blocks.
        end: The blocks that follow, and the head.
        keys: Paths of the photographs.
        config: Says how pixels are prepared.
        folder: Keeps the features.
        maps_folder: Keeps the maps.

    Returns:
        As `image_features`.
    """
    (width,) = end.shape

    def encode(chunk: Sequence[str]) -> Array:
        maps, readable = image_features(before, chunk, config, maps_folder)
        rows = np.zeros((len(chunk), width + 1), np.float16)
        for start in range(0, len(chunk), _MAPS):
            found = end(image_maps=maps[start : start + _MAPS].astype(np.float32))
            rows[start : start + _MAPS, :-1] = found
        rows[~readable] = 0
        rows[readable, -1] = 1
        return rows

    rows = cached_rows([str(key) for key in keys], end.fingerprint, folder, encode, width + 1, "photographs")
    return rows[:, :-1], rows[:, -1] > 0


def text_features(tower: LockedTower, texts: Sequence[str], tokenizer: Tokenizer, folder: Path) -> Array:
    """Compute the features (N, D) float16 of texts, or read them from `folder`; texts that come twice are run once."""
    (width,) = tower.shape
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}

    def encode(chunk: Sequence[str]) -> Array:
        return encode_texts(tower, chunk, tokenizer).astype(np.float16)

    rows = cached_rows(list(places), tower.fingerprint, folder, encode, width, "texts")
    return rows[[places[text] for text in texts]]


def encode_texts(tower: LockedTower, texts: Sequence[str], tokenizer: Tokenizer) -> Array:
    """Compute the features (N, D) float32 of texts, on all CPUs: batches go side by side."""
    rows = np.zeros((len(texts), *tower.shape), np.float32)

    def encode(batch: TextBatch) -> None:
        rows[batch.indices] = tower(input_ids=batch.input_ids, attention_mask=batch.attention_mask)[batch.rows]

    with ThreadPoolExecutor(usable_cpus()) as pool:
        list(pool.map(encode, tokenizer.encode(texts, batch_size=64, on_truncate="ignore")))
    return rows


def cached_rows(
    keys: list[str],
    fingerprint: str,
    folder: Path,
    encode: Callable[[Sequence[str]], Array],
    width: int,
    unit: str,
    *,
    dtype: type[np.floating] = np.float16,
) -> Array:
    """Return a row for each key, computing and keeping the rows that are not in `folder` yet.

    Args:
        keys: What each row depends on, beside the encoder.
        fingerprint: Fingerprint of the encoder.
        folder: Keeps the rows, `CHUNK` of them in a file.
        encode: Computes the rows of some keys.
        width: Length of a row.
        unit: What the progress bar counts.
        dtype: Type of the rows.

    Returns:
        (N, width) of that type.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.zeros((len(keys), width), dtype)
    chunks = [keys[start : start + CHUNK] for start in range(0, len(keys), CHUNK)]
    paths = [folder / f"{_digest(fingerprint.encode(), json.dumps(chunk))}.npy" for chunk in chunks]
    missing = sum(len(chunk) for chunk, path in zip(chunks, paths, strict=True) if not path.exists())
    if missing > CHUNK:  # it can take an hour, and a log file shows no bar
        tqdm.write(f"embedding {missing:,} of {len(keys):,} {unit}; the others are kept from before", file=sys.stderr)
    with tqdm(total=len(keys), unit=f" {unit}", disable=None, leave=None) as bar:  # one within another vanishes
        for start, chunk, path in zip(range(0, len(keys), CHUNK), chunks, paths, strict=True):
            found = None
            if path.exists():
                with suppress(ValueError, OSError, EOFError):  # a file that a full disk cut short is made again
                    found = np.load(path, allow_pickle=False)
            if found is None:
                found = encode(chunk)
                with written_whole(path) as partial, partial.open("wb") as file:
                    np.save(file, found)
            rows[start : start + len(chunk)] = found
            bar.update(len(chunk))
    return rows


def _saved(stored: Mapping[str, Array]) -> bytes:
    # safetensors writes the memory of an array and ignores strides, so a transposed array would come back scrambled.
    return save({name: np.ascontiguousarray(values) for name, values in stored.items()})


def _digest(data: bytes, *more: str) -> str:
    digest = hashlib.sha256(data)
    for text in more:
        digest.update(b"\0" + text.encode())
    return digest.hexdigest()[:16]

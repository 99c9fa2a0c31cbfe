"""Store weights in few bits, and read them back, in one way for Flax and for the ONNX graphs.

A table of weights is stored under these names:

float32, float16    `name`: the values.
int8                `name`: int8, times `name.scale`: float16, one for each output channel.
int4                `name.int4`: uint8, two weights a byte, minus 8, times `name.scale`: float16, one for 32 inputs.
                    This is the Q4_0 of ggml, but with the nibbles in the order of ONNX Runtime's MatMulNBits:
                    (rows, blocks, 16) bytes, the low nibble of byte j is weight 2j of its block, the high one 2j + 1.

int7                `name.int7`: int8 from -63 to 63, times `name.scale`: float32, one for each output. For matrices
                    that are multiplied in integers, by activations that are quantized to 8 bits in each run. If there
                    is `name.inputs`, float32, one for each input, activations are multiplied by it before they are
                    quantized, and the weights are the product of all three.

Leaves called `kernel` have their outputs last (inputs, outputs), or first when they are convolutions (outputs, inputs,
k, k); rows of int4 are outputs. Leaves called `embedding` are looked up by rows, and each row is an "output".

Names that end in `_range` are no weights: `clipita.convert.weights.integer_convolutions` says what they are.
"""

import fnmatch
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, assert_never

import numpy as np

from clipita.errors import CheckpointError
from clipita.system.arrays import Array

WeightFormat = Literal["float32", "float16", "int8", "int7", "int4"]

BLOCK = 32
_ZERO_POINT = 8
# CPUs without VNNI add two products of an unsigned and a signed byte in 16 bits and clip a larger sum. As 2 x 255 x 63
# is 32,130 and fits, the results are the same on every CPU, for 1.4 times the error of 8 bits (of a product, 1.9 %
# against 1.4 %). Unsigned weights would not need the limit, but take 1.5 to 7 times as long on CPUs with VNNI.
_INT7 = 63
# Least scale of a convolution's output. The step of its bias in integers, int32, is the product of this scale and of
# the input's: a channel of tiny weights, whose normalization found no variance, would need a larger number.
_LEAST_CONVOLUTION = 2.0**-14

# For a bundle of EfficientNet-lite2 and multilingual-e5-small, 25 MB. The stem and the first depthwise kernels have few
# weights and large effects, and are computed in float32 anyway (`clipita.convert.graph.efficientnet`).
SMALL: dict[str, WeightFormat] = {
    "image*": "int8",
    "image.stem.*": "float16",
    "image.blocks.0.depthwise.*": "float16",
    "text*": "float16",
    "text.word.*": "int4",
    "text.layers.*.kernel": "int4",
    "text_projection.*": "int8",
}

# For large transformers: matrices in integers, tables of words by rows; convolutions, positions and norms stay floats.
# Outliers of activations, above all in the middle of an MLP, would take most of the 8 bits. Cosines to float32, mean
# and least, of 320 texts by themselves through multilingual-e5-small as clipita-mini has it: 0.982 and 0.931; with the
# factors of `clipita.convert.weights.smoothing` 0.991 and 0.911, in batches of 64 0.982 and 0.877; with a scale for
# each token in the middle of MLPs as well 0.995 and 0.984, in batches 0.994 and 0.980. Without both, but with the
# middle of MLPs in float32, 0.991 and 0.952, and a ViT-B/32 takes 1.7 times as long. The words alone in int8 cost 1e-5.
INTEGER: dict[str, WeightFormat] = {"*.kernel": "int7", "*word.embedding": "int8"}


class Stored(NamedTuple):
    """Weights to be stored: `values`, which are converted to `dtype` when `array` is called."""

    values: Array
    dtype: np.dtype[Any]

    def array(self) -> Array:
        """Return the numbers to write, C-contiguous."""
        # safetensors writes the memory of an array without regard to strides: a transposed one would be scrambled.
        return np.ascontiguousarray(self.values, self.dtype).reshape(self.values.shape)


def quantize(table: Mapping[str, Array], formats: Mapping[str, WeightFormat]) -> dict[str, Array]:
    """Quantize a table of float weights; the arguments and errors are those of `plan`.

    Returns:
        The arrays to store, by the names at the top of this file.
    """
    return {name: stored.array() for name, stored in plan(table, formats).items()}


def plan(
    table: Mapping[str, Array],
    formats: Mapping[str, WeightFormat],
    factors: Mapping[str, Array] = MappingProxyType({}),
) -> dict[str, Stored]:
    """Decide how a table of float weights is stored, and quantize those that become integers.

    Args:
        table: Name -> float array, laid out as `clipita.towers.parameters` says.
        formats: Pattern of a name, with "*" for anything -> format. The last pattern that fits decides; a name that
            none fits is float32. int8 and int4 are for kernels and embeddings, int7 for matrices; other weights that
            their patterns fit become float32.
        factors: Name of a kernel -> (inputs,) float32 above 0, by which activations are to be multiplied if the kernel
            becomes int7; one that has none needs none.

    Raises:
        ValueError: A pattern fits no name, or int4 is asked for a shape that it cannot store.
    """
    if unused := [pattern for pattern in formats if not fnmatch.filter(table, pattern)]:
        raise ValueError(f"no weight is called {unused}; there are {sorted(table)[:5]} and others")
    stored: dict[str, Stored] = {}
    for name, values in table.items():
        format: WeightFormat = "float32"
        for pattern, candidate in formats.items():
            if fnmatch.fnmatchcase(name, pattern):
                format = candidate
        is_quantizable = name.endswith((".kernel", ".embedding")) or name in ("kernel", "embedding")
        if format == "int7" and (values.ndim != 2 or _is_embedding(name)):
            is_quantizable = False
        match format:
            case "int8" | "int7" | "int4" if is_quantizable:
                stored |= {
                    key: Stored(codes, codes.dtype)
                    for key, codes in _quantize(name, values, format, factors.get(name)).items()
                }
            case "float16":
                stored[name] = Stored(values, np.dtype(np.float16))
            case "float32" | "int8" | "int7" | "int4":
                stored[name] = Stored(values, np.dtype(np.float32))
            case _:
                assert_never(format)
    return stored


def dequantize(stored: Mapping[str, Array]) -> dict[str, Array]:
    """Invert `quantize`.

    Returns:
        Name -> float32 array.

    Raises:
        CheckpointError: A scale has no weights, or weights have no scale.
    """
    table: dict[str, Array] = {}
    for name, values in stored.items():
        if name.endswith(".scale") and _is_scale(stored, name.removesuffix(".scale")):
            continue
        if name.endswith(".inputs") and f"{name.removesuffix('.inputs')}.int7" in stored:
            continue
        if name.endswith("_range"):
            continue
        if name.endswith(".int4"):
            base = name.removesuffix(".int4")
            rows = _unpack(values, _scale(stored, base))
            table[base] = rows if _is_embedding(base) else np.ascontiguousarray(rows.T)
        elif name.endswith(".int7"):
            base = name.removesuffix(".int7")
            table[base] = values.astype(np.float32) * _scale(stored, base)
            if f"{base}.inputs" in stored:
                table[base] *= stored[f"{base}.inputs"].astype(np.float32)[:, None]
        elif values.dtype == np.int8:
            table[name] = values.astype(np.float32) * _scale(stored, name)
        elif values.dtype.name in ("float32", "float16"):
            table[name] = values.astype(np.float32)
        else:
            raise CheckpointError(f"the weight '{name}' is stored as {values.dtype}; expected float32, float16 or int8")
    return table


def pack_nibbles(codes: Array) -> Array:
    """Pack weights 0..15, uint8 (..., 2n), into bytes (..., n), the first of each pair in the low nibble."""
    return codes[..., 0::2] | codes[..., 1::2] << 4


def _quantize(
    name: str, values: Array, format: Literal["int8", "int7", "int4"], factors: Array | None
) -> dict[str, Array]:
    match format:
        case "int8":
            if values.ndim == 4:
                codes, scale = _quantize_convolution(values)
            else:
                codes, scale = _quantize_int8(values, axis=0 if _is_embedding(name) else 1)
            return {name: codes, f"{name}.scale": scale}
        case "int7":
            divided = values if factors is None else values / factors[:, None]
            scale = np.abs(divided).max(axis=0) / np.float32(_INT7)
            scale = np.where(scale == 0, np.float32(1), scale).astype(np.float32)
            stored = {f"{name}.int7": np.rint(divided / scale).astype(np.int8), f"{name}.scale": scale}
            return stored if factors is None else stored | {f"{name}.inputs": factors.astype(np.float32)}
        case "int4":
            return _quantize_to_int4(name, values)
        case _:
            assert_never(format)


def _quantize_to_int4(name: str, values: Array) -> dict[str, Array]:
    if values.ndim != 2:
        raise ValueError(f"'{name}' of shape {values.shape} cannot be int4, which is for matrices; choose int8")
    rows = values if _is_embedding(name) else values.T
    if rows.shape[1] % BLOCK:
        raise ValueError(f"'{name}' of shape {values.shape} cannot be int4: its inputs are no multiple of {BLOCK}")
    packed, scale = _quantize_int4(rows)
    return {f"{name}.int4": packed, f"{name}.scale": scale}


def _quantize_int8(values: Array, axis: int, least: float = 0.0) -> tuple[Array, Array]:
    """Quantize symmetrically, with one scale for each index of `axis`; it keeps all dimensions, to broadcast."""
    others = tuple(i for i in range(values.ndim) if i != axis)
    scale = _nonzero_float16(np.maximum(np.abs(values).max(axis=others, keepdims=True) / 127, least))
    codes = np.clip(np.rint(values / scale.astype(np.float32)), -127, 127).astype(np.int8)
    return codes, scale


def _quantize_convolution(values: Array) -> tuple[Array, Array]:
    """Quantize kernels (outputs, inputs, k, k) to int8 so that the sum of each k x k square is kept as well as can be.

    Neighboring pixels are nearly equal. Rounded one by one, the k x k weights of a square are off by a sum that
    multiplies the mean of the channel: an error that has the same sign everywhere. For clipita-mini that is most of
    what 8 bits cost: mean cosine of float32's embeddings to those of depthwise kernels in int8, without and with this,
    0.9960 and 0.9998. Weights whose rounding was the closest call are rounded the other way.
    """
    codes, scale = _quantize_int8(values, axis=0, least=_LEAST_CONVOLUTION)
    exact: Array = (values / scale.astype(np.float32)).reshape(*values.shape[:2], -1)
    squares: Array = codes.reshape(exact.shape).astype(np.float32)
    missing = np.rint(exact.sum(-1) - squares.sum(-1))  # (outputs, inputs), how many steps
    sign = np.sign(missing)[..., None]
    gain = np.where(np.abs(squares + sign) <= 127, (exact - squares) * sign, -np.inf)
    rank = np.argsort(np.argsort(-gain, axis=-1, kind="stable"), axis=-1, kind="stable")
    squares += np.where(rank < np.abs(missing)[..., None], sign, 0)
    return squares.astype(np.int8).reshape(values.shape), scale


def _quantize_int4(rows: Array) -> tuple[Array, Array]:
    """Quantize by Q4_0: the value of largest magnitude in a block becomes exactly -8 times the scale.

    Weights that were quantized so before come out bit for bit the same.
    """
    blocks = rows.reshape(len(rows), -1, BLOCK)
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)[..., 0]
    scale = _nonzero_float16(extreme / -_ZERO_POINT)
    codes = np.clip(np.rint(blocks / scale.astype(np.float32)[..., None]) + _ZERO_POINT, 0, 15).astype(np.uint8)
    return pack_nibbles(codes), scale


def _nonzero_float16(scale: Array) -> Array:
    """Round a scale to float16, but never to zero: a block of zeros, or of tiny numbers, would divide by it."""
    half = scale.astype(np.float16)
    return np.where(half == 0, np.float16(1), half)


def _unpack(packed: Array, scale: Array) -> Array:
    codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], BLOCK)
    weights = (codes.astype(np.float32) - _ZERO_POINT) * scale[..., None]
    return weights.reshape(len(packed), -1)


def _is_scale(stored: Mapping[str, Array], base: str) -> bool:
    """Tell the scale of a quantized `base` from a layer norm's weight of the same name."""
    if f"{base}.int4" in stored or f"{base}.int7" in stored:
        return True
    return base in stored and stored[base].dtype == np.int8


def _scale(stored: Mapping[str, Array], name: str) -> Array:
    if f"{name}.scale" not in stored:
        raise CheckpointError(f"the weight '{name}' has no '{name}.scale' beside it")
    return stored[f"{name}.scale"].astype(np.float32)


def _is_embedding(name: str) -> bool:
    return name.rpartition(".")[2] == "embedding"

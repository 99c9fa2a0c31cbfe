"""Read the files that `flax.serialization.to_bytes` writes (`flax_model.msgpack`), without Flax and as views.

MessagePack (msgpack.org, "spec.md") with extensions of Flax's own: an array is extension 1, a scalar extension 3, both
holding a MessagePack [shape, dtype name, numbers]; one of more than 2**30 bytes is a map of flat chunks. The msgpack
package would copy an array twice on its way; this reader walks over the bytes and notes where arrays lie.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import ml_dtypes
import numpy as np

from clipita.convert.readers.mapped import MappedFile, check_shape, reading
from clipita.errors import CheckpointError
from clipita.system.arrays import Array

_CHUNKED = "__msgpack_chunked_array__"

# A tree of parameters has ten levels or so, and a thousand leaves.
_MAX_DEPTH = 40
_MAX_VALUES = 500_000
_MAX_HEADER_VALUES = 32  # an array's shape, dtype and numbers
_MAX_STRING_BYTES = 4096

_DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(name).newbyteorder("<")
    for name in (
        "float64",
        "float32",
        "float16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint64",
        "uint32",
        "uint16",
        "uint8",
        "bool",
    )
}
_DTYPES["bfloat16"] = np.dtype(ml_dtypes.bfloat16)

# First byte -> the format in which a number, or the length of a text, array or extension, follows it.
_NUMBERS = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q"} | {
    0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"
}  # fmt: skip
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_BINARY_LENGTHS = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I"}
_EXTENSION_LENGTHS = {0xC7: ">B", 0xC8: ">H", 0xC9: ">I"}
_STRING_LENGTHS = {0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}
_LIST_LENGTHS = {0xDC: ">H", 0xDD: ">I"}
_MAP_LENGTHS = {0xDE: ">H", 0xDF: ">I"}


def read_flax_msgpack(path: Path) -> dict[str, Array]:
    """Read the arrays of a tree of parameters.

    Returns:
        The arrays by their paths in the tree, joined with "/". They are read-only views of the file, except those that
        are stored in chunks.

    Raises:
        CheckpointError: The file is damaged or incomplete, contradicts itself, or holds anything but arrays.
    """
    with reading(path, "Flax's msgpack"):
        file = MappedFile(path)
        reader = _ValueReader(file, 0, file.size, _MAX_VALUES)
        tree = reader.value()
        reader.check_end()
        if not isinstance(tree, dict):
            raise CheckpointError("its top level is not a map of names")
        arrays: dict[str, Array] = {}
        for name, array in _leaves(file, cast("dict[str, Any]", tree), ""):
            if name in arrays:
                raise CheckpointError(f"it has {name[:200]!r} twice")
            arrays[name] = array
        return arrays


class _Region(NamedTuple):
    start: int
    end: int


@dataclass(frozen=True)
class _Extension:
    code: int
    region: _Region


class _ValueReader:
    """Read values from `position` on. Text and numbers become Python's; binary data and extensions stay in place."""

    def __init__(self, file: MappedFile, position: int, end: int, max_values: int) -> None:
        self._file = file
        self._position = position
        self._end = end
        self._left = self._max_values = max_values

    def check_end(self) -> None:
        """Refuse bytes after the last value."""
        if self._position != self._end:
            raise CheckpointError(f"{self._end - self._position} bytes follow its end at {self._position}")

    def value(self, depth: int = 0) -> object:
        """Read the next value."""
        self._left -= 1
        if depth > _MAX_DEPTH or self._left < 0:
            raise CheckpointError(
                f"it nests deeper than {_MAX_DEPTH} levels, or holds more than {self._max_values} values"
            )
        first = self._number(">B")
        if first < 0x80 or first >= 0xE0:
            return first if first < 0x80 else first - 0x100
        if first in _CONSTANTS:
            return _CONSTANTS[first]
        if first in _NUMBERS:
            return self._number(_NUMBERS[first])
        if first < 0x90 or first in _MAP_LENGTHS:
            return self._map(first & 15 if first < 0x90 else self._number(_MAP_LENGTHS[first]), depth)
        if first < 0xA0 or first in _LIST_LENGTHS:
            length = first & 15 if first < 0xA0 else self._number(_LIST_LENGTHS[first])
            return [self.value(depth + 1) for _ in range(length)]
        if first < 0xC0 or first in _STRING_LENGTHS:
            region = self._take(first & 31 if first < 0xC0 else self._number(_STRING_LENGTHS[first]))
            return _text(self._file, region)
        if first in _BINARY_LENGTHS:
            return self._take(self._number(_BINARY_LENGTHS[first]))
        if 0xD4 <= first <= 0xD8 or first in _EXTENSION_LENGTHS:
            length = 1 << first - 0xD4 if first >= 0xD4 else self._number(_EXTENSION_LENGTHS[first])
            return _Extension(self._number(">b"), self._take(length))
        raise CheckpointError(f"byte {self._position - 1} is {first:#x}, which begins no value")

    def _map(self, length: int, depth: int) -> dict[str, object]:
        values: dict[str, object] = {}
        for _ in range(length):
            key = self.value(depth + 1)
            if not isinstance(key, str) or key in values:
                raise CheckpointError(f"a key that ends at byte {self._position} is no name, or there twice")
            values[key] = self.value(depth + 1)
        return values

    def _number(self, packing: str) -> Any:
        start, end = self._take(struct.calcsize(packing))
        return struct.unpack(packing, self._file.data[start:end])[0]

    def _take(self, length: int) -> _Region:
        region = _Region(self._position, self._position + length)
        if region.end > self._end:
            raise CheckpointError(
                f"{length} bytes are said to follow byte {self._position}, but it ends at {self._end}"
            )
        self._position = region.end
        return region


def _leaves(file: MappedFile, tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, Array]]:
    for key, value in tree.items():
        name = prefix + key
        match value:
            case dict() if _CHUNKED in value:
                yield name, _joined(file, name, cast("dict[str, Any]", value))
            case dict():
                yield from _leaves(file, cast("dict[str, Any]", value), f"{name}/")
            case _Extension(code=1 | 3):  # flax.serialization: _MsgpackExtType.ndarray and .npscalar
                yield name, _array(file, name, value)
            case _:
                raise CheckpointError(f"its leaf {name[:200]!r} is no array, but of type {type(value).__name__}")


def _array(file: MappedFile, name: str, extension: _Extension) -> Array:
    reader = _ValueReader(file, *extension.region, _MAX_HEADER_VALUES)
    header = reader.value()
    reader.check_end()
    called = f"the array {name[:200]!r}"
    shape, dtype, numbers = cast("list[object]", header) if isinstance(header, list) else (None, None, None)
    if isinstance(dtype, _Region):  # Python 2 wrote text so
        dtype = _text(file, dtype)
    if not isinstance(shape, list) or not isinstance(dtype, str) or not isinstance(numbers, _Region):
        raise CheckpointError(f"{called} is not [shape, dtype, numbers]")
    if dtype not in _DTYPES:
        raise CheckpointError(f"{called} is of type {dtype[:40]!r}, expected one of {', '.join(_DTYPES)}")
    return file.view(called, *numbers, _DTYPES[dtype], cast("list[object]", shape))


def _joined(file: MappedFile, name: str, tree: dict[str, Any]) -> Array:
    called = f"the array {name[:200]!r}"
    sizes, chunks = _listed(called, tree.get("shape")), _listed(called, tree.get("chunks"))
    if not chunks or not all(isinstance(chunk, _Extension) for chunk in chunks):
        raise CheckpointError(f"the chunks of {called} are no arrays")
    flat = [_array(file, name, chunk) for chunk in cast("list[_Extension]", chunks)]
    shape = check_shape(called, sizes)
    if sum(chunk.size for chunk in flat) != math.prod(shape) or len({chunk.dtype for chunk in flat}) != 1:
        raise CheckpointError(f"the chunks of {called} do not make one array of shape {list(shape)}")
    return np.concatenate([chunk.reshape(-1) for chunk in flat]).reshape(shape)


def _listed(called: str, numbered: object) -> list[object]:
    """Return the values of a numbered map as a list: {"0": a, "1": b} as [a, b]."""
    values = cast("dict[str, object]", numbered) if isinstance(numbered, dict) else {}
    if list(values) != [str(index) for index in range(len(values))]:
        raise CheckpointError(f"the chunks or the shape of {called} are not numbered in order")
    return list(values.values())


def _text(file: MappedFile, region: _Region) -> str:
    if region.end - region.start > _MAX_STRING_BYTES:
        raise CheckpointError(f"a name of {region.end - region.start} bytes is at byte {region.start}")
    return file.data[region.start : region.end].decode()

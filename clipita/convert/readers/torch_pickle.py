"""Read PyTorch checkpoints (`.pth`, `.bin`, `.pt`) without PyTorch and without running code in them.

The structure is a pickle, which `restricted_pickle` reads with a short list of names, all of which build tensors. Both
file forms are read: the zip of PyTorch 1.6 and later, and the older stream of pickles. Tensors are views of the file,
except those whose strides are not contiguous. Source: `torch/serialization.py` and `torch/_utils.py`.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from clipita.convert.readers.mapped import MappedFile, check_shape, reading
from clipita.convert.readers.restricted_pickle import Function, load
from clipita.convert.readers.stored_zip import members_of
from clipita.errors import CheckpointError
from clipita.system.arrays import Array

_MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py: MAGIC_NUMBER
_PROTOCOL = 1001
# The pickle holds names and shapes only, as the numbers are outside: that of BERT-base has 30 KB.
_MAX_PICKLE_BYTES = 8 << 20

_STORAGE_DTYPES: dict[str, np.dtype[Any]] = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}


def read_torch_checkpoint(path: Path) -> dict[str, Array]:
    """Read the tensors of a state dict.

    Args:
        path: A zip or legacy file whose top level is a flat mapping from names to tensors.

    Returns:
        The tensors by name, each C-contiguous and of its stored dtype (bfloat16 as that of ml_dtypes).

    Raises:
        CheckpointError: The file is damaged, is no such mapping, or holds anything but tensors and plain containers.
    """
    with reading(path, "a PyTorch checkpoint"):
        file = MappedFile(path)
        content, storages = _read_zip(path, file) if file.data[:4] == b"PK\x03\x04" else _read_legacy(file)
        left_to_copy = file.size
        arrays: dict[str, Array] = {}
        for name, tensor in _state_dict(content).items():
            view = tensor.view(f"the tensor {name[:200]!r}", storages)
            if not view.flags.c_contiguous and (left_to_copy := left_to_copy - view.nbytes) < 0:
                raise CheckpointError("its tensors share their numbers so often that they would not fit in it")
            arrays[name] = np.ascontiguousarray(view).reshape(view.shape)  # ascontiguousarray makes (1,) of ()
        return arrays


@dataclass(frozen=True)
class _StorageType:
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class _Storage:
    """A run of numbers that tensors view: its key, its dtype, and the start of a view inside it (legacy files only)."""

    key: str
    dtype: np.dtype[Any]
    start: int = 0


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements; the array need not be contiguous

    def view(self, called: str, storages: Mapping[str, Array]) -> Array:
        """Return the tensor as a view of its storage; `called` is its name in error messages."""
        if self.storage.key not in storages:
            raise CheckpointError(f"{called} is in the storage {self.storage.key[:80]!r}, which is not there")
        numbers = storages[self.storage.key].view(self.storage.dtype)
        if len(self.shape) != len(self.strides):
            raise CheckpointError(f"{called}, a tensor of shape {self.shape}, has {len(self.strides)} strides")
        if math.prod(self.shape) == 0:
            return np.zeros(self.shape, self.storage.dtype)
        first = self.storage.start + self.offset
        last = first + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
        if last >= len(numbers) or math.prod(self.shape) > len(numbers):  # the second refuses blow-up by zero strides
            raise CheckpointError(
                f"{called}, a tensor of shape {self.shape}, reaches element {last} of a storage of {len(numbers)}"
            )
        step = numbers.itemsize
        return np.lib.stride_tricks.as_strided(
            numbers[first:], self.shape, [stride * step for stride in self.strides], writeable=False
        )


def _rebuild_tensor(
    storage: object, offset: object, shape: object, strides: object, *_: object
) -> _Tensor:  # torch._utils._rebuild_tensor_v2; what follows is requires_grad, hooks and metadata
    if not isinstance(storage, _Storage):
        raise CheckpointError("a tensor has no storage")
    (first,) = check_shape("a tensor's offset", (offset,))
    return _Tensor(storage, first, _sizes(shape), _sizes(strides))


def _ordered_dict() -> dict[str, object]:  # its items are set later; `dict` itself would take keys of any kind
    return {}


def _rebuild_parameter(data: object, *_: object) -> object:  # torch._utils._rebuild_parameter
    return data


def _sizes(value: object) -> tuple[int, ...]:
    if not isinstance(value, tuple):
        raise CheckpointError(f"a tensor's shape or strides are of type {type(value).__name__}, not a tuple")
    return check_shape("a tensor, or its strides,", value)  # pyright: ignore[reportUnknownArgumentType]


_NAMES: Mapping[tuple[str, str], object] = {
    ("collections", "OrderedDict"): Function(_ordered_dict),
    ("torch._utils", "_rebuild_tensor"): Function(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Function(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): Function(_rebuild_parameter),
} | {
    (module, name): _StorageType(dtype)
    for module in ("torch", "torch.storage")
    for name, dtype in _STORAGE_DTYPES.items()
}


def _storage(reference: object) -> _Storage:
    match reference:
        case ("storage", _StorageType(dtype), str(key), str(), int()):  # zip
            return _Storage(key, dtype)
        case ("storage", _StorageType(dtype), str(key), str(), int(), None):  # legacy
            return _Storage(key, dtype)
        case ("storage", _StorageType(dtype), str(key), str(), int(), (str(), int(start), int())) if (
            start >= 0
        ):  # a view
            return _Storage(key, dtype, start)
        case _:
            raise CheckpointError("it refers to outside data in an unknown way")


class _BoundedStream:
    """A part of a file for pickletools. It gives no more bytes than a pickle may have, however many are asked for."""

    def __init__(self, file: MappedFile, start: int, end: int) -> None:
        self._file, self._position = file, start
        self._end = min(end, start + _MAX_PICKLE_BYTES)

    def read(self, size: int, /) -> bytes:
        """Read up to `size` bytes."""
        start = self._position
        self._position = min(self._end, start + size)
        return self._file.data[start : self._position]

    def readline(self) -> bytes:
        """Read up to the end of a line."""
        newline = self._file.data.find(b"\n", self._position, self._end)
        return self.read((newline + 1 if newline >= 0 else self._end) - self._position)

    def tell(self) -> int:
        """Return the position in the part."""
        return self._position


def _read_zip(path: Path, file: MappedFile) -> tuple[object, dict[str, Array]]:
    """Read a zip file: `<name>/data.pkl` holds the structure, `<name>/data/<key>` the numbers of each storage."""
    members = members_of(path, file)
    pickles = [name for name in members if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError(f"the archive holds {len(pickles)} files data.pkl instead of one")
    folder = pickles[0].removesuffix("data.pkl")
    byte_order = file.bytes(*members.get(folder + "byteorder", (0, 0)))[:20]
    if byte_order not in (b"", b"little"):
        raise CheckpointError(f"its numbers are {byte_order!r}-endian; only little-endian files are read")
    content = load(_BoundedStream(file, *members[pickles[0]]), _NAMES, _storage)
    data = folder + "data/"
    storages = {
        name.removeprefix(data): file.view(name, *range_, np.dtype(np.uint8), [range_[1] - range_[0]])
        for name, range_ in members.items()
        if name.startswith(data)
    }
    return content, storages


def _read_legacy(file: MappedFile) -> tuple[object, dict[str, Array]]:
    """Read a legacy file: five pickles (magic number, protocol, machine, structure, keys), then each storage."""
    position = 0
    dtypes: dict[str, np.dtype[Any]] = {}  # of each storage; the file states it only in references of tensors to it

    def note(reference: object) -> _Storage:
        storage = _storage(reference)
        dtypes[storage.key] = storage.dtype
        return storage

    def next_pickle() -> Any:
        nonlocal position
        stream = _BoundedStream(file, position, file.size)
        content = load(stream, _NAMES, note)
        position = stream.tell()
        return content

    if next_pickle() != _MAGIC or next_pickle() != _PROTOCOL:
        raise CheckpointError("it does not begin with PyTorch's magic number")
    if not next_pickle()["little_endian"]:
        raise CheckpointError("its numbers are big-endian; only little-endian files are read")
    content, keys = next_pickle(), next_pickle()
    storages: dict[str, Array] = {}
    for key in keys:
        if not isinstance(key, str) or key in storages or key not in dtypes:
            raise CheckpointError("its storages have no names of their own, or no tensor is in them")
        (size,) = struct.unpack("<q", file.bytes(position, position + 8))
        end = position + 8 + size * dtypes[key].itemsize
        storages[key] = file.view(f"storage {key[:80]!r}", position + 8, end, np.dtype(np.uint8), [end - position - 8])
        position = end
    return content, storages


def _state_dict(content: object) -> dict[str, _Tensor]:
    if not isinstance(content, dict):
        raise CheckpointError(f"its top level is a {type(content).__name__}, not a mapping from names to tensors")
    tensors: dict[str, _Tensor] = {}
    for name, value in content.items():  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise CheckpointError(f"its entry {str(name)[:80]!r} is not a named tensor")  # pyright: ignore[reportUnknownArgumentType]
        tensors[name] = value
    return tensors

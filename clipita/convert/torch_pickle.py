"""Reads PyTorch checkpoints (`.pth`, `.bin`, `.pt`) without PyTorch and without running what is in them.

A pickle is a program that may import and call anything. The unpickler here knows a short list of names, all of which
build tensors, and refuses every other: a hostile file costs an error. Both file forms are read, the zip of PyTorch 1.6
and later and the older stream of pickles, as `torch/serialization.py` and `torch/_utils.py` document them.
"""

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from clipita.errors import CheckpointError

Array = np.ndarray[Any, np.dtype[Any]]

_MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py: MAGIC_NUMBER
_PROTOCOL = 1001
_MAX_PICKLE_BYTES = 64 << 20  # names and shapes only; the numbers are outside

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
    """The tensors of a state dict, by name, each C-contiguous and of its stored dtype (bfloat16 as ml_dtypes' own).

    Args:
        path: a zip or legacy file whose top level is a flat mapping from names to tensors.

    Raises:
        CheckpointError: the file is damaged, is no such mapping, or holds anything but tensors and plain containers.
    """
    try:
        with path.open("rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            content, storages = _read_zip(file) if is_zip else _read_legacy(file)
        return {name: tensor.read(storages) for name, tensor in _state_dict(content).items()}
    except CheckpointError as error:
        raise CheckpointError(f"'{path}' cannot be read as a PyTorch checkpoint: {error}") from None
    # What a damaged stream makes the unpickler raise has no common base class.
    except (
        pickle.UnpicklingError, zipfile.BadZipFile, EOFError, OSError, struct.error, ValueError, TypeError, KeyError,
        IndexError, AttributeError, NotImplementedError, OverflowError, RecursionError, MemoryError,
    ) as error:  # fmt: skip
        raise CheckpointError(
            f"'{path}' is not a complete PyTorch checkpoint ({type(error).__name__}: {error}). Fetch or save it again."
        ) from error


@dataclass(frozen=True)
class _StorageType:
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class _Storage:
    """A run of numbers that tensors view, named by its key; where a view starts inside it (legacy files only)."""

    key: str
    dtype: np.dtype[Any]
    start: int = 0


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements; not those of a contiguous array in general

    def read(self, storages: dict[str, bytes]) -> Array:
        if len(self.shape) != len(self.strides) or min((self.offset, *self.shape, *self.strides), default=0) < 0:
            raise CheckpointError(f"a tensor has shape {self.shape}, strides {self.strides} and offset {self.offset}")
        numbers = np.frombuffer(storages[self.storage.key], self.storage.dtype)
        first = self.storage.start + self.offset
        last = first + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
        if math.prod(self.shape) == 0:
            return np.zeros(self.shape, self.storage.dtype)
        if last >= len(numbers) or math.prod(self.shape) > len(numbers):  # the second refuses blow-up by zero strides
            raise CheckpointError(
                f"a tensor of shape {self.shape} reaches element {last} of a storage of {len(numbers)} elements"
            )
        step = numbers.itemsize
        view = np.lib.stride_tricks.as_strided(numbers[first:], self.shape, [s * step for s in self.strides])
        return np.ascontiguousarray(view).reshape(self.shape)  # ascontiguousarray makes (1,) of ()


def _rebuild_tensor(
    storage: object, offset: object, shape: object, strides: object, *_: object
) -> _Tensor:  # torch._utils._rebuild_tensor_v2; what follows is requires_grad, hooks and metadata
    if not isinstance(storage, _Storage) or not isinstance(offset, int):
        raise CheckpointError("a tensor has no storage")
    return _Tensor(storage, offset, _ints(shape), _ints(strides))


def _rebuild_parameter(data: object, *_: object) -> object:  # torch._utils._rebuild_parameter
    return data


def _ints(value: object) -> tuple[int, ...]:
    if not isinstance(value, tuple):
        raise CheckpointError(f"a tensor's shape or strides are {value!r}, not a tuple")
    return tuple(int(n) for n in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


_CALLABLES: dict[tuple[str, str], Callable[..., object]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}


class _TensorUnpickler(pickle.Unpickler):
    """An unpickler that finds the names above and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _CALLABLES:
            return _CALLABLES[module, name]
        if module in ("torch", "torch.storage") and name in _STORAGE_DTYPES:
            return _StorageType(_STORAGE_DTYPES[name])
        raise CheckpointError(
            f"it asks for {module}.{name}, which is no tensor. Nothing of it was run; "
            "save the state dict alone, or use a safetensors file."
        )

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", _StorageType(dtype), str(key), str(), int()):  # zip
                return _Storage(key, dtype)
            case ("storage", _StorageType(dtype), str(key), str(), int(), None):  # legacy
                return _Storage(key, dtype)
            case ("storage", _StorageType(dtype), str(key), str(), int(), (_, int(start), int())):  # legacy view
                return _Storage(key, dtype, start)
            case _:
                raise CheckpointError(f"it refers to outside data in an unknown way: {str(pid)[:80]}")


def _read_zip(file: BinaryIO) -> tuple[object, dict[str, bytes]]:
    """`<name>/data.pkl` holds the structure, `<name>/data/<key>` the numbers of each storage, uncompressed."""
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in members if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise CheckpointError(f"the archive holds {len(pickles)} files data.pkl instead of one")
        folder = pickles[0].removesuffix("data.pkl")
        if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
            raise CheckpointError("the archive is compressed, which PyTorch never does")
        byte_order = archive.read(folder + "byteorder") if folder + "byteorder" in members else b"little"
        if byte_order != b"little":
            raise CheckpointError(f"its numbers are {byte_order!r}-endian; only little-endian files are read")
        if members[pickles[0]].file_size > _MAX_PICKLE_BYTES:
            raise CheckpointError(f"its structure takes {members[pickles[0]].file_size} bytes")
        content = _TensorUnpickler(io.BytesIO(archive.read(pickles[0]))).load()
        data = folder + "data/"
        return content, {name.removeprefix(data): archive.read(name) for name in members if name.startswith(data)}


def _read_legacy(file: BinaryIO) -> tuple[object, dict[str, bytes]]:
    """Five pickles (magic number, protocol, machine, structure, keys), then each storage, length first."""
    magic, protocol, machine = (_TensorUnpickler(file).load() for _ in range(3))
    if magic != _MAGIC or protocol != _PROTOCOL:
        raise CheckpointError("it does not begin with PyTorch's magic number")
    if not machine["little_endian"]:
        raise CheckpointError("its numbers are big-endian; only little-endian files are read")
    unpickler = _LegacyUnpickler(file)
    content = unpickler.load()
    keys = _TensorUnpickler(file).load()
    storages: dict[str, bytes] = {}
    for key in keys:
        dtype = unpickler.dtypes[key]
        (size,) = struct.unpack("<q", file.read(8))
        storages[key] = file.read(size * dtype.itemsize) if size >= 0 else b""
        if len(storages[key]) != size * dtype.itemsize:
            raise CheckpointError(f"storage {key} ends early: {size} elements announced")
    return content, storages


class _LegacyUnpickler(_TensorUnpickler):
    """Also notes each storage's dtype, which the legacy form states only where a tensor refers to it."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.dtypes: dict[str, np.dtype[Any]] = {}

    def persistent_load(self, pid: Any) -> _Storage:
        storage = super().persistent_load(pid)
        self.dtypes[storage.key] = storage.dtype
        return storage


def _state_dict(content: object) -> dict[str, _Tensor]:
    if not isinstance(content, dict):
        raise CheckpointError(f"its top level is a {type(content).__name__}, not a mapping from names to tensors")
    tensors: dict[str, _Tensor] = {}
    for name, value in content.items():  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise CheckpointError(f"its entry {str(name)[:80]!r} is not a named tensor")  # pyright: ignore[reportUnknownArgumentType]
        tensors[name] = value
    return tensors

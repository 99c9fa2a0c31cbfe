"""Read safetensors files, by the rules of the format's own page (huggingface/safetensors, "Format").

Eight bytes of header length, a JSON object {name: {dtype, shape, data_offsets}}, then the numbers: every byte of them
in exactly one tensor. The safetensors package reads them too, but makes a copy of each tensor; here they are views.
"""

import json
from pathlib import Path
from typing import Any, cast

import ml_dtypes
import numpy as np

from clipita.convert.readers.mapped import MappedFile, reading
from clipita.errors import CheckpointError
from clipita.system.arrays import Array

# The format allows 100 MB, and parsed JSON can take thirty times its size. A header of eight tensors has a kilobyte:
# 4 MiB are enough for 30,000.
_MAX_HEADER_BYTES = 4 << 20

_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


def read_safetensors(path: Path) -> dict[str, Array]:
    """Read the tensors of a file.

    Returns:
        Read-only views of the file by name, of their stored dtype (bfloat16 as that of ml_dtypes).

    Raises:
        CheckpointError: The file is damaged or incomplete, or contradicts itself.
    """
    with reading(path, "a safetensors file"):
        file = MappedFile(path)
        length = int.from_bytes(file.bytes(0, 8), "little")
        if length > _MAX_HEADER_BYTES:
            raise CheckpointError(f"its header is said to take {length} bytes, more than {_MAX_HEADER_BYTES}")
        header: object = json.loads(file.bytes(8, 8 + length).decode(), object_pairs_hook=_distinct)
        if not isinstance(header, dict):
            raise CheckpointError("its header is not a JSON object")
        entries = cast("dict[str, Any]", header)
        entries.pop("__metadata__", None)
        return _tensors(file, entries, 8 + length)


def _tensors(file: MappedFile, entries: dict[str, Any], start: int) -> dict[str, Array]:
    tensors: dict[str, Array] = {}
    ranges: list[tuple[int, int]] = []
    for name, entry in entries.items():
        called = f"the tensor {name[:200]!r}"
        match entry:
            case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(first), int(last)], **rest} if not rest:
                if dtype not in _DTYPES:
                    raise CheckpointError(f"{called} is of type {dtype[:20]!r}, expected one of {', '.join(_DTYPES)}")
                tensors[name] = file.view(
                    called, start + first, start + last, _DTYPES[dtype], cast("list[object]", shape)
                )
                ranges.append((start + first, start + last))
            case _:
                raise CheckpointError(f"{called} is not described by a dtype, a shape and two data_offsets alone")
    end = start
    for first, last in sorted(ranges):
        if first != end:
            what = "overlap" if first < end else "leave a gap"
            raise CheckpointError(f"its tensors {what} at byte {first}")
        end = last
    if end != file.size:
        raise CheckpointError(f"its tensors end at byte {end}, but the file has {file.size}")
    return tensors


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise CheckpointError("its header has a name twice")
    return values

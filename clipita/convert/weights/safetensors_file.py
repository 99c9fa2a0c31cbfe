"""Write `weights.safetensors` one tensor at a time, and find the place of each tensor in it for graphs.

Source: the safetensors format: the header's length as uint64, the header in JSON, then the numbers without gaps.
"""

import json
import math
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from safetensors import SafetensorError, safe_open

from clipita.convert.weights.quantize import Stored
from clipita.errors import CheckpointError

# Bytes of the disk left for the graphs, the tokenizer and other programs.
_SPARE = 64 << 20
_DTYPES = {"float32": "F32", "float16": "F16", "int8": "I8", "uint8": "U8"}


class Place(NamedTuple):
    """The place of a tensor in the file: bytes `offset` to `offset + length`."""

    dtype: str  # F32, F16, I8, U8
    shape: tuple[int, ...]
    offset: int
    length: int


@dataclass(frozen=True)
class StoredWeights:
    """A weights file for a graph beside it: its name, the places of its tensors, and a function that reads one."""

    name: str
    places: Mapping[str, Place]
    read: Callable[[Place], bytes]

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Open a file; its numbers stay on disk."""
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = file.read(length)

        def read(place: Place) -> bytes:
            with path.open("rb") as file:
                file.seek(place.offset)
                return file.read(place.length)

        return cls(path.name, _places(header), read)

    @classmethod
    def from_bytes(cls, name: str, content: bytes) -> Self:
        """Use the contents of a file that is in memory."""
        (length,) = struct.unpack_from("<Q", content)
        header = content[8 : 8 + length]
        return cls(name, _places(header), lambda place: content[place.offset : place.offset + place.length])


def check_weights_file(path: Path) -> None:
    """Check that the header of a weights file names no bytes outside it, which a graph would be made to read.

    Raises:
        CheckpointError: It does, or the file cannot be read.
    """
    try:
        with safe_open(path, "numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read: {error}. Copy or download it again.") from error


def write_weights(path: Path, weights: Mapping[str, Stored]) -> None:
    """Write a safetensors file. Each tensor is converted when its turn comes, so that only one at a time is in memory.

    Raises:
        CheckpointError: The disk has no room for the file. Nothing is written.
    """
    # Wider numbers come first: every tensor is then aligned to the size of its numbers.
    names = sorted(weights, key=lambda name: (-weights[name].dtype.itemsize, name))
    header: dict[str, object] = {}
    end = 0
    for name in names:
        values, dtype = weights[name]
        start, end = end, end + math.prod(values.shape) * dtype.itemsize
        header[name] = {"dtype": _DTYPES[dtype.name], "shape": values.shape, "data_offsets": (start, end)}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    needed, free = 8 + len(text) + end, shutil.disk_usage(path.parent).free - _SPARE
    if needed > free:
        raise CheckpointError(
            f"the weights take {needed / 1e9:.2f} GB in this form, and the disk of {str(path.parent)!r} has "
            f"{max(free, 0) / 1e9:.2f} GB left. Make room, or name another place: cache_dir=..., or HF_HOME."
        )
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            file.write(np.ascontiguousarray(weights[name].array()).data)


def parameter_counts(path: Path) -> dict[str, int]:
    """Count the weights of the image and of the text tower, with projections, without the scales of few bits."""
    counts = {"image": 0, "text": 0}
    places = StoredWeights.from_file(path).places
    for name, place in places.items():
        tower = name.partition(".")[0].removesuffix("_projection")
        base = name.removesuffix(".scale").removesuffix(".inputs")
        is_scale = base != name and any(f"{base}{end}" in places for end in ("", ".int4", ".int7"))
        if tower in counts and not is_scale and not name.endswith("_range"):
            counts[tower] += math.prod(place.shape) * (2 if name.endswith(".int4") else 1)
    return counts


def _places(header: bytes) -> dict[str, Place]:
    entries = json.loads(header)
    entries.pop("__metadata__", None)
    start = 8 + len(header)
    return {
        name: Place(entry["dtype"], tuple(entry["shape"]), start + begin, end - begin)
        for name, entry in entries.items()
        for begin, end in [entry["data_offsets"]]
    }

"""Map a file of weights into memory, and view its arrays there: their numbers are read when they are used.

Every number that a file states about itself is checked against the file before anything is allocated by it.
"""

import contextlib
import math
import mmap
import struct
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clipita.errors import CheckpointError
from clipita.system.arrays import Array

# A larger dimension would overflow NumPy's arithmetic before it could be compared with the size of the file.
_MAX_DIMENSION = 1 << 48
_MAX_DIMENSIONS = 16


class MappedFile:
    """A file in memory, read-only. The mapping lives as long as an array that views it."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self.size = file.seek(0, 2)
            if self.size == 0:
                raise CheckpointError("it is empty")
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def bytes(self, start: int, end: int) -> bytes:
        """Return a copy of these bytes, all of which must be in the file."""
        self.check_range("a part", start, end)
        return self.data[start:end]

    def view(self, name: str, start: int, end: int, dtype: np.dtype[Any], shape: Sequence[object]) -> Array:
        """View these bytes as an array; there must be exactly as many as its shape takes."""
        self.check_range(name, start, end)
        sizes = check_shape(name, shape)
        if math.prod(sizes) * dtype.itemsize != end - start:
            raise CheckpointError(f"{name} has {end - start} bytes, which is not {dtype} of shape {list(sizes)}")
        if start == end:
            return np.zeros(sizes, dtype)
        return np.frombuffer(self.data, dtype, math.prod(sizes), start).reshape(sizes)

    def check_range(self, name: str, start: int, end: int) -> None:
        """Refuse a range of bytes that is not in the file."""
        if not 0 <= start <= end <= self.size:
            raise CheckpointError(f"{name} is said to be in bytes {start} to {end} of a file of {self.size}")


def check_shape(name: str, shape: Sequence[object]) -> tuple[int, ...]:
    """Return `shape` as whole numbers, none of which is too large to compute with."""
    sizes = tuple(n for n in shape if type(n) is int and 0 <= n < _MAX_DIMENSION)
    if len(sizes) != len(shape) or len(sizes) > _MAX_DIMENSIONS:
        raise CheckpointError(f"the shape of {name} is not up to {_MAX_DIMENSIONS} whole numbers")
    return sizes


@contextlib.contextmanager
def reading(path: Path, kind: str) -> Generator[None]:
    """Turn any error that a damaged or hostile file causes in its reader into one that names the file.

    Warnings are turned too, which `-W error` raises: Python warns of odd escapes in a text that pickletools reads.
    """
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"'{path}' cannot be read as {kind}: {error}. Fetch or save it again.") from None
    except (
        ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, NotImplementedError, OSError,
        RecursionError, TypeError, ValueError, Warning, struct.error,
    ) as error:  # fmt: skip
        raise CheckpointError(
            f"'{path}' cannot be read as {kind} ({type(error).__name__}: {str(error)[:200]}). Fetch or save it again."
        ) from error

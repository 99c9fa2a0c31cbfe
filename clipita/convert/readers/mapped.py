"""A file of weights, mapped into memory: arrays are views of it, so that a checkpoint is read as it is used, and once.

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

# A dimension above this would overflow NumPy's own arithmetic before it could be compared with the file.
_MAX_DIMENSION = 1 << 48
_MAX_DIMENSIONS = 16


class MappedFile:
    """Read-only. The mapping lives as long as an array that views it."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self.size = file.seek(0, 2)
            if self.size == 0:
                raise CheckpointError("it is empty")
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def bytes(self, start: int, end: int) -> bytes:
        """A copy of these bytes, all of which must be in the file."""
        self.check_range("a part", start, end)
        return self.data[start:end]

    def view(self, name: str, start: int, end: int, dtype: np.dtype[Any], shape: Sequence[object]) -> Array:
        """The array that these bytes are; they must be exactly as many as its shape takes."""
        self.check_range(name, start, end)
        sizes = check_shape(name, shape)
        if math.prod(sizes) * dtype.itemsize != end - start:
            raise CheckpointError(f"{name} has {end - start} bytes, which is not {dtype} of shape {list(sizes)}")
        if start == end:
            return np.zeros(sizes, dtype)
        return np.frombuffer(self.data, dtype, math.prod(sizes), start).reshape(sizes)

    def check_range(self, name: str, start: int, end: int) -> None:
        """Refuse bytes that are not in the file."""
        if not 0 <= start <= end <= self.size:
            raise CheckpointError(f"{name} is said to be in bytes {start} to {end} of a file of {self.size}")


def check_shape(name: str, shape: Sequence[object]) -> tuple[int, ...]:
    """`shape` as whole numbers of a size that can be reckoned with."""
    sizes = tuple(n for n in shape if type(n) is int and 0 <= n < _MAX_DIMENSION)
    if len(sizes) != len(shape) or len(sizes) > _MAX_DIMENSIONS:
        raise CheckpointError(f"the shape of {name} is not up to {_MAX_DIMENSIONS} whole numbers")
    return sizes


@contextlib.contextmanager
def reading(path: Path, kind: str) -> Generator[None]:
    """Turn whatever a damaged or hostile file makes its reader raise into one error that names the file.

    Warnings too, which are raised under `-W error`: Python's of odd escapes in a text, which pickletools meets.
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

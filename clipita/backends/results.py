"""Check the output of a tower, in the same way for every engine."""

from typing import Any, cast

import numpy as np
import numpy.typing as npt

from clipita.errors import CheckpointError
from clipita.system.arrays import FloatArray


def checked(result: object, rows: int, width: int, called: str) -> FloatArray:
    """Return the output of a tower, once it is sure to be embeddings.

    A NaN would get into every index and every ranking unnoticed. Damaged weights give NaN, and so does float16 where a
    model's numbers do not fit into it. The check takes 4 us for 32 embeddings.

    Args:
        result: The engine's output.
        rows: The number of inputs, B.
        width: The width E that the bundle states.
        called: The tower's name in error messages.

    Returns:
        `result`: (B, E) float32.

    Raises:
        CheckpointError: The shape or the type differs, or a number is not finite. The weights are at fault and not the
            input, which is whole numbers; still it may be one input alone that shows it, and the message says which.
    """
    embeddings = cast("npt.NDArray[Any]", result)
    if not isinstance(result, np.ndarray) or embeddings.dtype != np.float32:
        found = embeddings.dtype if isinstance(result, np.ndarray) else type(result).__name__
        raise CheckpointError(f"{called} gives {found}, where embeddings of float32 are expected. Export it again.")
    if embeddings.shape != (rows, width):
        raise CheckpointError(
            f"{called} gives embeddings of shape {embeddings.shape}, but the bundle says that they are {width} wide, "
            f"and there are {rows} of them. Export it again."
        )
    if not np.isfinite(embeddings).all():
        first = int(np.flatnonzero(~np.isfinite(embeddings).all(axis=1))[0])
        raise CheckpointError(
            f"{called} gives numbers that are not finite (NaN or infinity), first for input {first + 1} of {rows}. Its "
            "weights are damaged, or do not fit into their precision: get the model again, or load another precision."
        )
    return embeddings

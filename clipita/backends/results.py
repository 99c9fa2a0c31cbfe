"""Check what a tower gave before anybody relies on it, in the same way for every engine."""

from typing import Any, cast

import numpy as np
import numpy.typing as npt

from clipita.errors import CheckpointError
from clipita.system.arrays import FloatArray


def checked(result: object, rows: int, width: int, called: str) -> FloatArray:
    """Return the embeddings that a tower gave, if that is what they are.

    A NaN would go into every index and every ranking without a word: damaged weights give them, and so does float16
    where a model's numbers do not fit into it. Looking takes 4 us for 32 embeddings.

    Args:
        result: What the engine gave.
        rows: How many inputs it had.
        width: How wide the bundle says that embeddings are.
        called: How errors call the tower.

    Raises:
        CheckpointError: they are of another shape or type, or not finite. The weights are at fault and not the input,
            which is whole numbers: it may be one input alone that shows it, and the message says which.
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

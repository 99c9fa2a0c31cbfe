"""Name the types of arrays that pass between rooms."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]  # of any dtype and shape, as weights are stored
FloatArray: TypeAlias = npt.NDArray[np.float32]  # embeddings, cosines
IntArray: TypeAlias = npt.NDArray[np.int64]  # token ids, masks, times
Pixels: TypeAlias = npt.NDArray[np.uint8]  # (..., H, W, C)

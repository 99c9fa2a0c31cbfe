"""Define what a model needs of the engine that runs it."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


class Backend(Protocol):
    """The engine under a model."""

    name: str
    providers: tuple[str, ...]

    def encode_pixels(self, pixels: Pixels) -> FloatArray:
        """(B, S, S, 3) RGB to (B, E) of unit norm."""
        ...

    def encode_tokens(self, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]) -> FloatArray:
        """(B, L) ids and mask to (B, E) of unit norm."""
        ...

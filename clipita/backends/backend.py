"""Define what a model needs of the engine that runs it."""

from typing import Protocol

from clipita.system.arrays import FloatArray, IntArray, Pixels


class Backend(Protocol):
    """The engine under a model."""

    name: str
    providers: tuple[str, ...]

    def encode_pixels(self, pixels: Pixels) -> FloatArray:
        """(B, S, S, 3) RGB to (B, E) of unit norm."""
        ...

    def encode_tokens(self, input_ids: IntArray, attention_mask: IntArray) -> FloatArray:
        """(B, L) ids and mask to (B, E) of unit norm."""
        ...

"""Define what a model needs of the engine that runs it."""

from typing import Protocol

from clipita.system.arrays import FloatArray, IntArray, Pixels


class Backend(Protocol):
    """An engine that runs a model's two towers.

    Attributes:
        name: "onnx" or "flax".
        providers: The devices or execution providers in use, first choice first.
        text_runs: How many threads embed batches of texts faster than one after the other; 1 if none do.
    """

    name: str
    providers: tuple[str, ...]
    text_runs: int

    def encode_pixels(self, pixels: Pixels) -> FloatArray:
        """Embed images: (B, S, S, 3) RGB pixels to (B, E) of unit norm."""
        ...

    def encode_positions(self, pixels: Pixels) -> FloatArray:
        """Compute projected vectors without a norm at all positions: (B, S, S, 3) RGB pixels to (B, N, E), row by row.

        Raises:
            BackendError: The towers are of a kind that only their own graphs describe.
        """
        ...

    def encode_tokens(self, input_ids: IntArray, attention_mask: IntArray) -> FloatArray:
        """Embed texts: (B, L) ids and mask to (B, E) of unit norm."""
        ...

"""Measure how near the embeddings of two forms of one model are, by their cosines."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from clipita.bundles.bundle import TOKENIZER
from clipita.convert.samples import TEXTS, pictures
from clipita.system.arrays import FloatArray, IntArray, Pixels
from clipita.text.tokenizer import Tokenizer
from clipita.towers.opened import OpenedModel


class Encoder(Protocol):
    """Any object that embeds pixels (B, S, S, 3) and tokens (B, L) as (B, E) of unit norm, such as a backend."""

    def encode_pixels(self, pixels: Pixels) -> FloatArray:
        """Embed images: (B, S, S, 3) to (B, E)."""
        ...

    def encode_tokens(self, input_ids: IntArray, attention_mask: IntArray) -> FloatArray:
        """Embed texts: (B, L) ids and mask to (B, E)."""
        ...


def fidelity(model: OpenedModel, reference: Encoder, other: Encoder) -> dict[str, float]:
    """Compare two encoders on `clipita.convert.samples`, one input at a time.

    Args:
        model: Says how pictures and texts are prepared for both encoders.
        reference: One encoder.
        other: The other.

    Returns:
        The figures of `cosines` for both towers.
    """
    batches = Tokenizer.from_file(model.bundle.path(TOKENIZER), model.tokenizer).encode(
        TEXTS, batch_size=1, on_truncate="ignore"
    )

    def images(encoder: Encoder) -> list[FloatArray]:
        return [encoder.encode_pixels(picture[None]) for picture in pictures(model.preprocessing.image_size)]

    def texts(encoder: Encoder) -> list[FloatArray]:
        return [encoder.encode_tokens(batch.input_ids, batch.attention_mask) for batch in batches]

    return cosines("image", images(reference), images(other)) | cosines("text", texts(reference), texts(other))


def cosines(tower: str, first: Sequence[FloatArray], second: Sequence[FloatArray]) -> dict[str, float]:
    """Return the mean and the smallest cosine of rows of unit norm, under "<tower>_cosine" and "<tower>_cosine_min"."""
    found = (np.concatenate(first) * np.concatenate(second)).sum(axis=-1)
    return {f"{tower}_cosine": round(float(found.mean()), 6), f"{tower}_cosine_min": round(float(found.min()), 6)}

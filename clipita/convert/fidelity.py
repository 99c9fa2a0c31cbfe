"""How near two forms of one model are: the cosines of their embeddings."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from clipita.bundles.bundle import TOKENIZER
from clipita.convert.samples import TEXTS, pictures
from clipita.system.arrays import FloatArray, IntArray, Pixels
from clipita.text.tokenizer import Tokenizer
from clipita.towers.opened import OpenedModel


class Encoder(Protocol):
    """What a bundle runs on; `pixels` (B, S, S, 3) and tokens (B, L) to (B, E) of unit norm."""

    def encode_pixels(self, pixels: Pixels) -> FloatArray: ...

    def encode_tokens(self, input_ids: IntArray, attention_mask: IntArray) -> FloatArray: ...


def fidelity(model: OpenedModel, reference: Encoder, other: Encoder) -> dict[str, float]:
    """Mean and smallest cosine between two encoders, on `clipita.convert.samples`, one input at a time."""
    batches = Tokenizer.from_file(model.bundle.path(TOKENIZER), model.tokenizer).encode(
        TEXTS, batch_size=1, on_truncate="ignore"
    )

    def images(encoder: Encoder) -> list[FloatArray]:
        return [encoder.encode_pixels(picture[None]) for picture in pictures(model.preprocessing.image_size)]

    def texts(encoder: Encoder) -> list[FloatArray]:
        return [encoder.encode_tokens(batch.input_ids, batch.attention_mask) for batch in batches]

    return cosines("image", images(reference), images(other)) | cosines("text", texts(reference), texts(other))


def cosines(tower: str, first: Sequence[FloatArray], second: Sequence[FloatArray]) -> dict[str, float]:
    """Mean and smallest cosine of rows of unit norm, called after the tower."""
    found = (np.concatenate(first) * np.concatenate(second)).sum(axis=-1)
    return {f"{tower}_cosine": round(float(found.mean()), 6), f"{tower}_cosine_min": round(float(found.min()), 6)}

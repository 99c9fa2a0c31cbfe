"""Make one vector of what is asked for: a sentence or a photograph, with more of this and less of that."""

from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np

from clipita.images.decode import ImageInput
from clipita.model import Model
from clipita.search.cosines import FloatVectors

# A str is a sentence; a photograph is a Path, bytes, an open file, a PIL image or an array.
Wanted: TypeAlias = str | ImageInput
Weighted: TypeAlias = Wanted | tuple[Wanted, float]


def query_vector(
    model: Model,
    wanted: Wanted,
    more: Iterable[Weighted],
    less: Iterable[Weighted],
    usual_sentence: Callable[[], FloatVectors],
    usual_photo: Callable[[], FloatVectors],
) -> FloatVectors:
    """Return the direction that is asked for.

    What is to be there more or less moves the query only by what distinguishes it from others of its kind: all
    sentences have much in common, and so have all photographs, and taking that away would leave noise.

    Args:
        model: Embeds them.
        wanted: A sentence or a photograph.
        more: Others that are to fit too, each with its weight or of weight 1.
        less: Others that are not to fit.
        usual_sentence: Gives (E,), the mean of many sentences; it is called if it is needed.
        usual_photo: Gives (E,), the mean of the archive's photographs, likewise.

    Returns:
        (E,) float32 of unit norm.

    Raises:
        TextError, ImageError: one of them cannot be used.
    """
    vector = _embed(model, wanted).astype(np.float64)
    for sign, items in ((1.0, more), (-1.0, less)):
        for item in items:
            other, weight = item if isinstance(item, tuple) else (item, 1.0)
            usual = usual_sentence() if isinstance(other, str) else usual_photo()
            vector += sign * weight * (_embed(model, other) - usual)
    return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)


def _embed(model: Model, item: Wanted) -> FloatVectors:
    return model.encode_text(item) if isinstance(item, str) else model.encode_image(item)

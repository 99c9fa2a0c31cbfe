"""Draw the caption of a photograph that a training step sees."""

from collections.abc import Sequence

import numpy as np


def caption_at(captions: Sequence[str], *, id: int, step: int | None, seed: int = 0) -> str:
    """The caption of a photograph that a step, or an epoch, sees: any of them, by its id, whatever else is drawn.

    In validation `step` is None, and it is always the first.
    """
    if not captions:
        raise ValueError(f"photograph {id} has no caption: leave it out of the pairs")
    if step is None:
        return captions[0]
    return captions[int(np.random.default_rng((seed, id, step)).integers(len(captions)))]

"""Draw one of several captions of a photograph for a training step."""

from collections.abc import Sequence

import numpy as np


def caption_at(captions: Sequence[str], *, id: int, step: int | None, seed: int = 0) -> str:
    """Return the caption of a photograph that is used at a step or epoch.

    It depends on the arguments alone, not on what else is drawn.

    Args:
        captions: The captions of the photograph.
        id: Number of the photograph.
        step: Step or epoch; None in validation, which always uses the first caption.
        seed: Seed of the run.

    Raises:
        ValueError: There is no caption.
    """
    if not captions:
        raise ValueError(f"photograph {id} has no caption: leave it out of the pairs")
    if step is None:
        return captions[0]
    return captions[int(np.random.default_rng((seed, id, step)).integers(len(captions)))]

"""Tell what an image tower knows of places: at how many positions, and what their vectors mean.

A tower that ends in a mean over positions and a linear projection splits its embedding exactly: the projection of a
mean is the mean of the projections. For other heads each position is taken for itself, which approximates. A class
token or a pooling query would look at all patches at once, so here every patch attends to itself alone at that place.
Source for that step: Zhou et al., "Extract Free Dense Labels from CLIP" (arXiv:2112.01071).
"""

from typing import Literal, TypeAlias

from clipita.towers.config import DualConfig, VitConfig
from clipita.towers.efficientnet_config import block_shapes, map_shape

Meaning: TypeAlias = Literal["exact", "patches"]


def meaning_of_positions(config: DualConfig) -> Meaning:
    """Return "exact" if the mean over the positions' vectors is the embedding before its norm, else "patches"."""
    ends_in_mean = not isinstance(config.image, VitConfig) or config.image.pooling == "mean"
    return "exact" if ends_in_mean and config.image_projection.hidden is None else "patches"


def positions_side(config: DualConfig) -> int:
    """Return how many positions the tower has along each side of its square."""
    size = config.preprocessing.image_size
    if isinstance(config.image, VitConfig):
        return size // config.image.patch
    return map_shape(config.image, size, len(block_shapes(config.image)))[0]

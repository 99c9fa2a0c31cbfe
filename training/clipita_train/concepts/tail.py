"""Train the last blocks of an EfficientNet-lite on cached maps of the blocks before them."""

import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from clipita.system.arrays import Array
from clipita.towers.config import DualConfig
from clipita.towers.efficientnet import ConvNorm, InvertedBottleneck
from clipita.towers.efficientnet_config import EfficientNetLiteConfig, block_shapes
from clipita.towers.parameters import parameter_table, set_parameters
from clipita_train.engine.config import StageConfig


class ImageTail(nnx.Module):
    """The blocks of an EfficientNet-lite from number `first` on, and its head, with batch norms folded.

    Folded norms hold the statistics of the pretrained weights. Parameters have the names that they have in the tower:
    block 19 is "blocks.19", also where it is the first of the tail.
    """

    def __init__(self, config: EfficientNetLiteConfig, first: int, *, rngs: nnx.Rngs) -> None:
        shapes = block_shapes(config)
        self.blocks = nnx.Dict(
            {
                str(number): InvertedBottleneck(shapes[number], folded=True, rngs=rngs)
                for number in range(first, len(shapes))
            }
        )
        self.head = ConvNorm(shapes[-1].outputs, config.head_width, 1, 1, depthwise=False, folded=True, rngs=rngs)

    def __call__(self, maps: jax.Array) -> jax.Array:
        """Compute pooled features (B, D) float32 from maps (B, H, W, C) of the block before."""
        x = maps.astype(jnp.float32)
        for number in sorted(self.blocks, key=int):
            x = self.blocks[number](x)
        return jax.nn.relu6(self.head(x)).mean(axis=(1, 2))


def first_block(config: DualConfig, count: int) -> int:
    """Return the number of the first of the last `count` blocks.

    Raises:
        ValueError: The image tower is not an EfficientNet-lite, or does not have more than `count` blocks.
    """
    if not isinstance(config.image, EfficientNetLiteConfig):
        raise ValueError("only the last blocks of an EfficientNet-lite can be unlocked on cached maps")
    blocks = len(block_shapes(config.image))
    if not 0 < count < blocks:
        raise ValueError(f"the tail must have 1 to {blocks - 1} of the {blocks} blocks of the image tower, not {count}")
    return blocks - count


def image_tail(config: DualConfig, tower: Mapping[str, Array], first: int) -> ImageTail:
    """Make a tail with the weights of a tower, which are named as in a bundle, with norms folded."""
    assert isinstance(config.image, EfficientNetLiteConfig)
    image = config.image
    tail = nnx.eval_shape(lambda: ImageTail(image, first, rngs=nnx.Rngs(0)))
    parts = ("image.head.", *(f"image.blocks.{number}." for number in tail.blocks))
    set_parameters(tail, {n.removeprefix("image."): values for n, values in tower.items() if n.startswith(parts)})
    return tail


def tower_weights(tail: ImageTail) -> dict[str, Array]:
    """Return the weights of a tail, named as in a bundle."""
    return {f"image.{name}": values for name, values in parameter_table(tail).items()}


def learns(stage: StageConfig) -> bool:
    """Return whether a stage trains the tail, by the rule that matches its head."""
    return any(rule.multiplier and re.fullmatch(rule.pattern, "image_tail/head/kernel") for rule in stage.parameters)

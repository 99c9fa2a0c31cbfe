"""The last blocks of a locked EfficientNet-lite, which learn on cached maps of the blocks before them."""

import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from clipita.convert.quantize import Array
from clipita.towers.config import DualConfig
from clipita.towers.efficientnet import ConvNorm, InvertedBottleneck
from clipita.towers.efficientnet_config import EfficientNetLiteConfig, block_shapes
from clipita.towers.parameters import parameter_table, set_parameters
from training.config import StageConfig
from training.data.batches import Rows

_NUMBER = re.compile(r"^blocks\.(\d+)")
BATCH = 256  # maps at once: 10 MB of them


class ImageTail(nnx.Module):
    """Blocks from `first` on, and the head, normalisations folded: they were made for the weights they come with."""

    def __init__(self, config: EfficientNetLiteConfig, first: int, *, rngs: nnx.Rngs) -> None:
        shapes = block_shapes(config)
        self.first = first
        self.blocks = nnx.List([InvertedBottleneck(shape, folded=True, rngs=rngs) for shape in shapes[first:]])
        self.head = ConvNorm(shapes[-1].outputs, config.head_width, 1, 1, depthwise=False, folded=True, rngs=rngs)

    def __call__(self, maps: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) of the block before -> pooled features (B, D) float32."""
        x = maps.astype(jnp.float32)
        for block in self.blocks:
            x = block(x)
        return jax.nn.relu6(self.head(x)).mean(axis=(1, 2))


def first_block(config: DualConfig, count: int) -> int:
    """Number of the first of the last `count` blocks.

    Raises:
        ValueError: the image tower is no EfficientNet-lite, or has no more blocks than that.
    """
    if not isinstance(config.image, EfficientNetLiteConfig):
        raise ValueError("only the last blocks of an EfficientNet-lite can be unlocked on cached maps")
    blocks = len(block_shapes(config.image))
    if not 0 < count < blocks:
        raise ValueError(f"the image tower has {blocks} blocks; {count} of them cannot be the last ones")
    return blocks - count


def image_tail(config: DualConfig, tower: Mapping[str, Array], first: int) -> ImageTail:
    """A tail with the weights of the tower that it is cut from, named as in a bundle, folded."""
    assert isinstance(config.image, EfficientNetLiteConfig)
    image = config.image
    tail = nnx.eval_shape(lambda: ImageTail(image, first, rngs=nnx.Rngs(0)))
    names = {_in_tail(name, first): name for name in tower}
    set_parameters(tail, {ours: tower[theirs] for ours, theirs in names.items() if ours is not None})
    return tail


def tower_weights(tail: ImageTail) -> dict[str, Array]:
    """The tail's weights, named as in a bundle."""
    return {_in_tower(name, tail.first): values for name, values in parameter_table(tail).items()}


def tail_features(tail: ImageTail, maps: Rows, rows: Array) -> Array:
    """Pooled features (N, D) float16 of some of the maps."""
    graph, state = nnx.split(tail)
    run = jax.jit(lambda state, maps: nnx.merge(graph, state)(maps))
    found = []
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        found.append(np.asarray(run(state, maps[np.resize(batch, BATCH)])[: len(batch)], np.float16))
    return np.concatenate(found)


def learns(stage: StageConfig) -> bool:
    """Whether a stage trains the tail: the rule that its head matches says so."""
    return any(rule.multiplier and re.fullmatch(rule.pattern, "image_tail/head/kernel") for rule in stage.parameters)


def _in_tower(name: str, first: int) -> str:
    return "image." + _NUMBER.sub(lambda found: f"blocks.{int(found[1]) + first}", name)


def _in_tail(name: str, first: int) -> str | None:
    """The same the other way round; None of what is before the tail."""
    inner = name.removeprefix("image.")
    found = _NUMBER.match(inner)
    if found is None:
        return inner if inner.startswith("head.") else None
    number = int(found[1]) - first
    return _NUMBER.sub(f"blocks.{number}", inner) if number >= 0 else None

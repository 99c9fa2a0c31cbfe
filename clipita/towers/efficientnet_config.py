"""Define the sizes of the EfficientNet-lite family, and the shapes of their blocks. Imports neither JAX nor ONNX."""

import math
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class EfficientNetLiteConfig:
    """The size of an EfficientNet-lite. Stem and head keep their width, all else is scaled by `width` and `depth`."""

    width: float = 1.0
    depth: float = 1.0
    stem_width: int = 32
    head_width: int = 1280

    @property
    def features(self) -> int:
        """Width of the pooled features."""
        return self.head_width


LITE0 = EfficientNetLiteConfig(width=1.0, depth=1.0)  # published for 224 x 224 pixels
LITE1 = EfficientNetLiteConfig(width=1.0, depth=1.1)  # 240
LITE2 = EfficientNetLiteConfig(width=1.1, depth=1.2)  # 260


class BlockShape(NamedTuple):
    """The channels of a block (in, expanded, out), and the kernel size and stride of its depthwise convolution."""

    inputs: int
    expanded: int
    outputs: int
    kernel: int
    stride: int

    @property
    def has_expansion(self) -> bool:
        """Whether the block begins with a convolution that adds channels."""
        return self.expanded != self.inputs

    @property
    def has_skip(self) -> bool:
        """Whether the block's input is added to its output, which then have the same shape."""
        return self.stride == 1 and self.inputs == self.outputs


# The repeats, kernel size, stride, expansion and output channels of the seven stages at width 1 and depth 1.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def block_shapes(config: EfficientNetLiteConfig) -> list[BlockShape]:
    """List the blocks of a size in order, for the Flax tower, the ONNX graph and the readers alike."""
    shapes: list[BlockShape] = []
    inputs = config.stem_width
    for index, (repeats, kernel, stride, expansion, channels) in enumerate(_STAGES):
        outputs = _round_channels(channels * config.width)
        if 0 < index < len(_STAGES) - 1:  # The first and the last stage keep their depth, as stem and head their width.
            repeats = math.ceil(repeats * config.depth)
        for repeat in range(repeats):
            shapes.append(BlockShape(inputs, inputs * expansion, outputs, kernel, stride if repeat == 0 else 1))
            inputs = outputs
    return shapes


def map_shape(config: EfficientNetLiteConfig, size: int, blocks: int) -> tuple[int, int, int]:
    """Return (H, W, C) of the maps after the first `blocks` blocks, from pixels of `size` by `size`."""
    shapes = block_shapes(config)[:blocks]
    stride = 2 * math.prod(shape.stride for shape in shapes)
    side = -(-size // stride)
    return side, side, shapes[-1].outputs


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return TensorFlow's SAME padding (before, after): an even input at stride 2 gets one less before than after."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _round_channels(channels: float, divisor: int = 8) -> int:
    """Round to the nearest multiple of 8, but never down by more than 10 %."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor

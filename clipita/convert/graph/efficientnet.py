"""Build the ONNX nodes of EfficientNet-lite, the tower of `clipita.towers.efficientnet`."""

import numpy as np

from clipita.convert.graph.builder import Graph
from clipita.towers.efficientnet_config import EfficientNetLiteConfig, block_shapes, map_shape, same_padding


def efficientnet(
    graph: Graph,
    x: str,
    config: EfficientNetLiteConfig,
    prefix: str,
    size: int,
    *,
    first: int = 0,
    blocks: int | None = None,
    pooled: bool = True,
) -> str:
    """Compute pooled features (B, D) from normalized pixels (B, 3, size, size).

    With `first`, begin at the block of that number, from the maps (B, H, W, C) of the block before. With `blocks`, stop
    after that many and give their maps. Without `pooled`, give the features of all
    positions, (B, H * W, D), whose mean the pooled ones are.
    """

    def conv(x: str, name: str, kernel: int = 1, stride: int = 1, groups: int = 1) -> str:
        before, after = same_padding(size, kernel, stride)
        weight, bias = graph.dense(f"{prefix}{name}.kernel"), graph.dense(f"{prefix}{name}.bias")
        pads, strides = [before, before, after, after], [stride, stride]
        return graph.node("Conv", x, weight, bias, pads=pads, strides=strides, group=groups)

    def relu6(x: str) -> str:
        return graph.node("Clip", x, graph.constant(np.float32(0)), graph.constant(np.float32(6)))

    if first:
        x = graph.node("Transpose", x, perm=[0, 3, 1, 2])
        size = map_shape(config, size, first)[0]
    else:
        x = relu6(conv(x, "stem", 3, 2))
        size = -(-size // 2)
    for index, shape in list(enumerate(block_shapes(config)[:blocks]))[first:]:
        name = f"blocks.{index}."
        y = relu6(conv(x, name + "expand")) if shape.has_expansion else x
        y = relu6(conv(y, name + "depthwise", shape.kernel, shape.stride, groups=shape.expanded))
        size = -(-size // shape.stride)
        y = conv(y, name + "project")
        x = graph.node("Add", x, y) if shape.has_skip else y
    if blocks is not None:
        return graph.node("Transpose", x, perm=[0, 2, 3, 1])
    x = relu6(conv(x, "head"))  # (B, features, H, W)
    if not pooled:
        x = graph.node("Reshape", x, graph.constant(np.array([0, 0, -1])))
        return graph.node("Transpose", x, perm=[0, 2, 1])
    return graph.node("Flatten", graph.node("GlobalAveragePool", x))  # (B, features)

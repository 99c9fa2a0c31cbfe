"""Build the ONNX nodes of a vision transformer, the tower of `clipita.towers.vit`."""

from typing import assert_never

import numpy as np

from clipita.convert.graph.builder import Graph
from clipita.convert.graph.transformer import FIRST, Mask, activation, attend, attend_to_itself, layer, token
from clipita.towers.config import VitConfig


def vit(graph: Graph, x: str, config: VitConfig, prefix: str, *, pooled: bool = True) -> str:
    """Compute pooled features (B, D) from normalized pixels (B, 3, S, S).

    Without `pooled`, give those of all patches (B, N, D), each as if it were alone where the tower pools; for pooling
    "mean", their mean is the pooled features.
    """
    bias = [graph.dense(f"{prefix}patch.bias")] if config.patch_bias else []
    x = graph.node("Conv", x, graph.dense(f"{prefix}patch.kernel"), *bias, strides=[config.patch, config.patch])
    x = graph.node("Reshape", x, graph.constant(np.array([0, 0, -1])))
    x = graph.node("Transpose", x, perm=[0, 2, 1])  # (B, N, D)
    if config.class_token:
        first = _for_each_image(graph, f"{prefix}class_token.embedding", x, config.width)
        x = graph.node("Concat", first, x, axis=1)
    x = graph.node("Add", x, graph.dense(f"{prefix}position.embedding"))
    if config.embedding_norm:
        x = graph.layer_norm(x, f"{prefix}embedding_norm", config.epsilon)
    kept = FIRST if config.pooling in ("cls", "pooler") else None
    for index in range(config.layers):
        is_last = index == config.layers - 1
        name = f"{prefix}layers.{index}."
        if is_last and not pooled and kept is not None:
            x = layer(graph, x, config, name, Mask(), alone=True)
        else:
            x = layer(graph, x, config, name, Mask(), kept=kept if is_last and pooled else None)
    x = graph.layer_norm(x, f"{prefix}norm", config.epsilon)
    one = graph.constant(np.array([1]))
    if not pooled:
        return _features_of_patches(graph, x, config, prefix)
    match config.pooling:
        case "map":
            return graph.node("Squeeze", _attention_pool(graph, x, config, f"{prefix}head."), one)
        case "mean":
            x = _patches(graph, x, config)
            return graph.node("Squeeze", graph.node("ReduceMean", x, one, keepdims=1), one)
        case "cls":
            return graph.node("Squeeze", token(graph, x, FIRST), one)
        case "pooler":
            x = graph.node("Squeeze", token(graph, x, FIRST), one)
            return graph.node("Tanh", graph.linear(x, f"{prefix}pooler"))
        case _:
            assert_never(config.pooling)


def _patches(graph: Graph, x: str, config: VitConfig) -> str:
    """Leave out the class token, if there is one."""
    if not config.class_token:
        return x
    one = graph.constant(np.array([1]))
    return graph.node("Slice", x, one, graph.constant(np.array([np.iinfo(np.int64).max])), one)


def _features_of_patches(graph: Graph, x: str, config: VitConfig, prefix: str) -> str:  # (B, N, D)
    x = _patches(graph, x, config)
    match config.pooling:
        case "map":
            return _pool_mlp(graph, attend_to_itself(graph, x, f"{prefix}head."), config, f"{prefix}head.")
        case "mean" | "cls":
            return x
        case "pooler":
            return graph.node("Tanh", graph.linear(x, f"{prefix}pooler"))
        case _:
            assert_never(config.pooling)


def _attention_pool(graph: Graph, x: str, config: VitConfig, prefix: str) -> str:  # (B, N, D) -> (B, 1, D)
    probe = _for_each_image(graph, f"{prefix}probe.embedding", x, config.width)
    return _pool_mlp(graph, attend(graph, probe, x, config, prefix, Mask()), config, prefix)


def _pool_mlp(graph: Graph, y: str, config: VitConfig, prefix: str) -> str:
    hidden = graph.layer_norm(y, f"{prefix}mlp_norm", config.epsilon)
    hidden = activation(graph, graph.linear(hidden, f"{prefix}mlp_in"), config.activation)
    return graph.node("Add", y, graph.linear(hidden, f"{prefix}mlp_out", uneven=True))


def _for_each_image(graph: Graph, name: str, x: str, width: int) -> str:
    """Repeat the one row of an embedding for each image: beside `x` (B, N, D) it is (B, 1, D)."""
    batch = graph.node("Shape", x, start=0, end=1)
    shape = graph.node("Concat", batch, graph.constant(np.array([1, width])), axis=0)
    return graph.node("Expand", graph.dense(name), shape)

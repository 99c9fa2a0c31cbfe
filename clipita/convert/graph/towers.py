"""Build the ONNX graphs of a dual encoder, from uint8 pixels or token ids to embeddings of unit norm.

The graphs hold no weights. Every initializer above a few bytes is external data, at its place in `weights.safetensors`
and in the form in which `clipita.convert.weights.quantize` stored it. The graph itself turns it into float32, and ONNX
Runtime does so once, when it loads the graph and folds constants.
"""

# onnx generates its types at run time.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from typing import assert_never

import numpy as np
import onnx
from onnx import TensorProto, helper

from clipita.convert.graph.builder import Graph
from clipita.convert.graph.efficientnet import efficientnet
from clipita.convert.graph.text import bert, clip_text
from clipita.convert.graph.vit import vit
from clipita.convert.weights.safetensors_file import StoredWeights
from clipita.towers.config import BertConfig, ClipTextConfig, DualConfig, ProjectionConfig, VitConfig
from clipita.towers.efficientnet_config import EfficientNetLiteConfig, map_shape
from clipita.towers.positions import positions_side

_NORM_FLOOR = 1e-12  # least norm to divide by, so that a vector of zeros stays zeros and becomes no NaN


def image_graph(
    config: DualConfig,
    weights: StoredWeights,
    *,
    pooled: bool = False,
    blocks: int | None = None,
    portable: bool = False,
) -> onnx.ModelProto:
    """Build the image tower's graph: "pixels" uint8 (B, S, S, 3) -> "image_embeddings" float32 (B, E).

    Args:
        config: The architecture.
        weights: The weights by the names of `clipita.towers.dual`, convolutions folded.
        pooled: End before the projection, at "image_features" (B, D), which training caches of a locked tower.
        blocks: End after this many blocks of an EfficientNet, at "image_maps" (B, H, W, C), which training caches if
            the later blocks learn.
        portable: Use operators of the ONNX standard only, for runtimes that lack ONNX Runtime's own.

    Raises:
        CheckpointError: A weight is missing.
    """
    graph = Graph(weights, portable=portable)
    size = config.preprocessing.image_size
    x = _normalized_pixels(graph, config)
    match config.image:
        case VitConfig() as image:
            features = vit(graph, x, image, "image.")
        case EfficientNetLiteConfig() as image:
            features = efficientnet(graph, x, image, "image.", size, blocks=blocks)
        case _:
            assert_never(config.image)
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["B", size, size, 3])
    if blocks is not None and not isinstance(config.image, VitConfig):
        return graph.finish("image", [pixels], features, "image_maps", *map_shape(config.image, size, blocks))
    if pooled:
        return graph.finish("image", [pixels], features, "image_features", config.image.features)
    embeddings = _projection(graph, features, config.image_projection, "image_projection.")
    return graph.finish("image", [pixels], _unit_norm(graph, embeddings), "image_embeddings", config.embed_dim)


def image_end_graph(config: DualConfig, weights: StoredWeights, first: int) -> onnx.ModelProto:
    """Build the end of an EfficientNet's graph: "image_maps" (B, H, W, C) -> "image_features" (B, D).

    Args:
        config: The architecture.
        weights: As for `image_graph`.
        first: The number of the first block; the maps are those that the block before it gives.

    Raises:
        CheckpointError: A weight is missing.
    """
    if not isinstance(config.image, EfficientNetLiteConfig):
        raise TypeError(
            f"expected an EfficientNet-lite, which has blocks to begin at, not {type(config.image).__name__}"
        )
    graph, size = Graph(weights), config.preprocessing.image_size
    features = efficientnet(graph, "image_maps", config.image, "image.", size, first=first)
    maps = helper.make_tensor_value_info("image_maps", TensorProto.FLOAT, ["B", *map_shape(config.image, size, first)])
    return graph.finish("image_end", [maps], features, "image_features", config.image.features)


def positions_graph(config: DualConfig, weights: StoredWeights) -> onnx.ModelProto:
    """Build the graph of vectors at all positions: "pixels" uint8 (B, S, S, 3) -> "image_positions" (B, N, E).

    Positions go row by row, projected and without a norm; `clipita.towers.positions` says what they mean.

    Raises:
        CheckpointError: A weight is missing.
    """
    graph = Graph(weights)
    size = config.preprocessing.image_size
    x = _normalized_pixels(graph, config)
    match config.image:
        case VitConfig() as image:
            features = vit(graph, x, image, "image.", pooled=False)
        case EfficientNetLiteConfig() as image:
            features = efficientnet(graph, x, image, "image.", size, pooled=False)
        case _:
            assert_never(config.image)
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["B", size, size, 3])
    vectors = _projection(graph, features, config.image_projection, "image_projection.")
    return graph.finish("image", [pixels], vectors, "image_positions", positions_side(config) ** 2, config.embed_dim)


def text_graph(
    config: DualConfig, weights: StoredWeights, *, pooled: bool = False, portable: bool = False
) -> onnx.ModelProto:
    """Build the text tower's graph: "input_ids" and "attention_mask" int64 (B, L) -> "text_embeddings" float32 (B, E).

    Args:
        config: The architecture.
        weights: The weights by the names of `clipita.towers.dual`.
        pooled: End before the projection, at "text_features" (B, D).
        portable: As for `image_graph`.

    Raises:
        CheckpointError: A weight is missing.
    """
    graph = Graph(weights, portable=portable)
    match config.text:
        case BertConfig() as text:
            features = bert(graph, text, "text.")
        case ClipTextConfig() as text:
            features = clip_text(graph, text, "text.")
        case _:
            assert_never(config.text)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["B", "L"]) for name in ("input_ids", "attention_mask")
    ]
    if pooled:
        return graph.finish("text", inputs, features, "text_features", config.text.features)
    embeddings = _projection(graph, features, config.text_projection, "text_projection.")
    return graph.finish("text", inputs, _unit_norm(graph, embeddings), "text_embeddings", config.embed_dim)


def _normalized_pixels(graph: Graph, config: DualConfig) -> str:  # uint8 (B, S, S, 3) -> float32 (B, 3, S, S)
    mean, std = (
        np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (config.preprocessing.mean, config.preprocessing.std)
    )
    # The normalization is not folded into the first kernel: SAME padding adds zeros after it, which fold to the mean.
    x = graph.node("Cast", graph.node("Transpose", "pixels", perm=[0, 3, 1, 2]), to=TensorProto.FLOAT)
    return graph.node("Mul", graph.node("Sub", x, graph.constant(mean)), graph.constant(1 / std))


def _projection(graph: Graph, x: str, config: ProjectionConfig, prefix: str) -> str:
    y = graph.linear(x, f"{prefix}linear", bias=config.bias) if config.linear else None
    if config.hidden is None:
        return y or x
    bias = config.bias or config.linear
    hidden = graph.node("Gelu", graph.linear(x, f"{prefix}mlp_in", bias=bias))
    z = graph.linear(hidden, f"{prefix}mlp_out", bias=bias)
    return graph.node("Add", y, z) if y else z


def _unit_norm(graph: Graph, x: str) -> str:
    norm = graph.node("ReduceL2", x, graph.constant(np.array([-1])), keepdims=1)
    return graph.node("Div", x, graph.node("Max", norm, graph.constant(np.float32(_NORM_FLOOR))))

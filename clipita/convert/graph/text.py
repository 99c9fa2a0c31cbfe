"""Build the ONNX nodes of the text towers, `clipita.towers.bert` and `clipita.towers.clip_text`."""

from typing import assert_never

import numpy as np
from onnx import TensorProto

from clipita.convert.graph.builder import Graph
from clipita.convert.graph.transformer import FIRST, LAST, layer, text_mask
from clipita.towers.config import BertConfig, ClipTextConfig


def bert(graph: Graph, config: BertConfig, prefix: str) -> str:
    """Compute pooled features (B, D) from the graph's inputs by a BERT."""
    one = graph.constant(np.array([1]))
    added = _positions(graph, prefix)
    if config.token_types:
        zero = graph.constant(np.array([0]))
        token_type = graph.node("Slice", graph.dense(f"{prefix}token_type.embedding"), zero, one, zero)  # (1, D)
        added = graph.node("Add", added, token_type)
    x = graph.node("Add", graph.rows(f"{prefix}word.embedding", "input_ids"), added)
    x = graph.layer_norm(x, f"{prefix}norm", config.epsilon)
    mask = text_mask(graph, padding=True, causal=False)
    for index in range(config.layers):
        is_pooled = index == config.layers - 1 and config.pooling != "mean"
        x = layer(graph, x, config, f"{prefix}layers.{index}.", mask, kept=FIRST if is_pooled else None)
    match config.pooling:
        case "mean":
            weights = graph.node("Cast", mask.padding, to=TensorProto.FLOAT)
            weights = graph.node("Unsqueeze", weights, graph.constant(np.array([2])))  # (B, L, 1)
            total = graph.node("ReduceSum", graph.node("Mul", x, weights), one, keepdims=0)
            return graph.node("Div", total, graph.node("ReduceSum", weights, one, keepdims=0))
        case "cls":
            return graph.node("Squeeze", x, one)
        case "pooler":
            return graph.node("Tanh", graph.linear(graph.node("Squeeze", x, one), f"{prefix}pooler"))
        case _:
            assert_never(config.pooling)


def clip_text(graph: Graph, config: ClipTextConfig, prefix: str) -> str:
    """Compute pooled features (B, D) from the graph's inputs by a text tower of CLIP's family."""
    causal = config.attention == "causal"
    x = graph.node("Add", graph.rows(f"{prefix}word.embedding", "input_ids"), _positions(graph, prefix))
    mask = text_mask(graph, padding=config.attention == "masked", causal=causal)
    pooled = {"cls": FIRST, "last": LAST}.get(config.pooling)
    for index in range(config.layers):
        kept = pooled if index == config.layers - 1 and not causal else None
        x = layer(graph, x, config, f"{prefix}layers.{index}.", mask, kept=kept)
    match config.pooling:
        case "cls":
            x = graph.node("Gather", x, graph.constant(np.array(FIRST)), axis=1)
        case "last":
            x = graph.node("Gather", x, graph.constant(np.array(LAST)), axis=1)
        case "eos" | "highest":
            ids = "input_ids"
            if config.eos_token is not None:
                is_end = graph.node("Equal", ids, graph.constant(np.array(config.eos_token)))
                ids = graph.node("Cast", is_end, to=TensorProto.INT32)
            place = graph.node("ArgMax", ids, axis=1, keepdims=1)  # (B, 1), the first if there are several
            x = graph.node("GatherND", x, place, batch_dims=1)
        case _:
            assert_never(config.pooling)
    return graph.layer_norm(x, f"{prefix}norm", config.epsilon)


def _positions(graph: Graph, prefix: str) -> str:  # -> (L, D)
    length, zero = graph.node("Shape", "input_ids", start=1, end=2), graph.constant(np.array([0]))
    return graph.node("Slice", graph.dense(f"{prefix}position.embedding"), zero, length, zero)

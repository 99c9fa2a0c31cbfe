"""Build the ONNX nodes of transformer layers, those of `clipita.towers.transformer`."""

from typing import NamedTuple, assert_never

import numpy as np
from onnx import TensorProto

from clipita.convert.graph.builder import MICROSOFT, Graph
from clipita.towers.config import Activation, BertConfig, TransformerConfig

FIRST, LAST = 0, -1  # the token that the last layer is computed for, where it is only one


class Mask(NamedTuple):
    """The tokens that attention may see.

    Attributes:
        padding: The value int32 (B, L) with 1 for tokens and 0 for padding, or "" if padding is seen as well.
        causal: Whether a token sees only itself and those before it.
        bias: The same as numbers to add to the logits, for portable graphs.
    """

    padding: str = ""
    causal: bool = False
    bias: str = ""


def text_mask(graph: Graph, *, padding: bool, causal: bool) -> Mask:
    """Make the mask that all layers share."""
    mask = graph.node("Cast", "attention_mask", to=TensorProto.INT32) if padding else ""
    if not graph.portable or not (padding or causal):
        return Mask(mask, causal)
    if padding:  # (B, 1, 1, L)
        allowed = graph.node(
            "Unsqueeze", graph.node("Cast", mask, to=TensorProto.BOOL), graph.constant(np.array([1, 2]))
        )
    else:  # (L, L)
        length = graph.node("Squeeze", graph.node("Shape", "input_ids", start=1, end=2))
        step = graph.node("Range", graph.constant(np.array(0)), length, graph.constant(np.array(1)))
        allowed = graph.node("LessOrEqual", step, graph.node("Unsqueeze", step, graph.constant(np.array([1]))))
    lowest = graph.constant(np.float32(np.finfo(np.float32).min))
    return Mask(mask, causal, graph.node("Where", allowed, graph.constant(np.float32(0)), lowest))


def attend(graph: Graph, queries: str, x: str, config: TransformerConfig, prefix: str, mask: Mask) -> str:
    """Let the tokens `queries` (B, Q, D) attend to `x` (B, L, D) -> (B, Q, D)."""
    q, k, v = (graph.linear(y, prefix + name) for y, name in ((queries, "query"), (x, "key"), (x, "value")))
    if graph.portable:
        attended = _plain_attention(graph, q, k, v, config, mask)
    else:
        options = {"num_heads": config.heads, "unidirectional": int(mask.causal)}
        attended = graph.node("MultiHeadAttention", q, k, v, "", mask.padding, domain=MICROSOFT, **options)
    return graph.linear(attended, prefix + "output")


def attend_to_itself(graph: Graph, x: str, prefix: str) -> str:
    """Let each token of `x` (B, L, D) attend to itself alone -> (B, L, D)."""
    return graph.linear(graph.linear(x, prefix + "value"), prefix + "output")


def layer(
    graph: Graph,
    x: str,
    config: TransformerConfig,
    prefix: str,
    mask: Mask,
    *,
    kept: int | None = None,
    alone: bool = False,
) -> str:
    """Compute one layer: (B, L, D) -> (B, L, D), or (B, 1, D) if only the token `kept` is wanted.

    With `alone`, each token attends to itself and to no other.
    """

    def norm(x: str, name: str) -> str:
        return graph.layer_norm(x, prefix + name, config.epsilon)

    def mlp(x: str) -> str:
        hidden = activation(graph, graph.linear(x, prefix + "mlp_in"), config.activation)
        return graph.linear(hidden, prefix + "mlp_out", uneven=True)

    def keep(x: str) -> str:
        return x if kept is None else token(graph, x, kept)

    if isinstance(config, BertConfig):
        queries = keep(x)
        x = norm(graph.node("Add", queries, attend(graph, queries, x, config, prefix, mask)), "attention_norm")
        return norm(graph.node("Add", x, mlp(x)), "mlp_norm")
    normed = norm(x, "attention_norm")
    if alone:
        attended = attend_to_itself(graph, normed, prefix)
    else:
        attended = attend(graph, keep(normed), normed, config, prefix, mask)
    x = graph.node("Add", keep(x), attended)
    return graph.node("Add", x, mlp(norm(x, "mlp_norm")))


def token(graph: Graph, x: str, index: int) -> str:
    """Take the first or the last token: (B, L, D) -> (B, 1, D)."""
    return graph.node("Gather", x, graph.constant(np.array([index])), axis=1)


def activation(graph: Graph, x: str, name: Activation) -> str:
    """Apply the function between the two linear maps of an MLP."""
    match name:
        case "relu":
            return graph.node("Relu", x)
        case "gelu":
            return graph.node("Gelu", x, approximate="none")
        case "gelu_tanh":
            return graph.node("Gelu", x, approximate="tanh")
        case "quick_gelu":
            if not graph.portable:
                return graph.node("QuickGelu", x, domain=MICROSOFT, alpha=1.702)
            return graph.node("Mul", x, graph.node("Sigmoid", graph.node("Mul", x, graph.constant(np.float32(1.702)))))
        case _:
            assert_never(name)


def _plain_attention(graph: Graph, q: str, k: str, v: str, config: TransformerConfig, mask: Mask) -> str:
    split = graph.constant(np.array([0, 0, config.heads, config.width // config.heads]))
    q, k, v = (
        graph.node("Transpose", graph.node("Reshape", y, split), perm=perm)
        for y, perm in ((q, [0, 2, 1, 3]), (k, [0, 2, 3, 1]), (v, [0, 2, 1, 3]))
    )
    scale = graph.constant(np.float32((config.width // config.heads) ** -0.5))
    logits = graph.node("MatMul", graph.node("Mul", q, scale), k)  # (B, heads, Q, L)
    if mask.bias:
        logits = graph.node("Add", logits, mask.bias)
    attended = graph.node("MatMul", graph.node("Softmax", logits, axis=-1), v)
    joined = graph.node("Transpose", attended, perm=[0, 2, 1, 3])
    return graph.node("Reshape", joined, graph.constant(np.array([0, 0, config.width])))

"""Add the nodes of convolutions that are multiplied in integers, as pairs of QuantizeLinear and DequantizeLinear.

ONNX Runtime and OpenVINO take a convolution between such pairs for one of integers, of unsigned bytes with signed ones.
"""

# onnx generates its types at run time.
# pyright: reportUnknownMemberType=false

from typing import NamedTuple

import numpy as np
from onnx import TensorProto, numpy_helper

from clipita.convert.graph.builder import Graph
from clipita.errors import CheckpointError
from clipita.system.arrays import FloatArray

_MOST_BIAS = 2**31 - 1


class Map(NamedTuple):
    """A value of a graph, and the step that it was rounded to; None if it is any float."""

    value: str
    step: np.float32 | None = None


def rounded(graph: Graph, x: str, least: float, most: float) -> Map:
    """Round a value to 256 steps from `least` to `most`, one of which is 0."""
    least, most = min(least, 0.0), max(most, 0.0)
    step = np.float32((most - least) / 255)
    scale, zero = graph.constant(step), graph.constant(np.array(np.rint(-least / step), np.uint8))
    codes = graph.node("QuantizeLinear", x, scale, zero)
    return Map(graph.node("DequantizeLinear", codes, scale, zero), step)


def range_of(graph: Graph, name: str) -> tuple[float, float]:
    """Read a range, as `clipita.convert.weights.integer_convolutions` stores it.

    Raises:
        CheckpointError: It is none.
    """
    least, most = (float(value) for value in graph.numbers(name))
    if not -np.inf < least < most < np.inf:
        raise CheckpointError(f"the range '{name}' goes from {least} to {most}: convert the model again")
    return least, most


def integer_weights(graph: Graph, name: str, step: np.float32) -> tuple[str, str]:
    """Return kernel and bias of the convolution `name` for an input that was rounded to this step."""
    kernel, scale = graph.codes(f"{name}.kernel")
    steps: FloatArray = graph.numbers(f"{name}.kernel.scale").astype(np.float32).ravel() * step  # (outputs,)
    codes = np.clip(np.rint(graph.numbers(f"{name}.bias") / steps), -_MOST_BIAS, _MOST_BIAS).astype(np.int32)
    bias = f"{name}.bias.codes"
    graph.initializers[bias] = numpy_helper.from_array(codes, bias)
    scale = graph.node("Cast", scale, to=TensorProto.FLOAT)
    kernel = graph.node("DequantizeLinear", kernel, scale, axis=0)
    bias = graph.node("DequantizeLinear", bias, graph.node("Mul", scale, graph.constant(step)), axis=0)
    return kernel, bias

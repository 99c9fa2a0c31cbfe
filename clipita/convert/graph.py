"""Builds the ONNX graphs of a dual encoder: named weights in, uint8 pixels or token ids to unit-norm embeddings out.

The graphs hold no weights. Every initializer above a few bytes is external data at the place where
`weights.safetensors` has it, in the form in which `clipita.convert.quantize` stored it; the graph itself turns it into
float32, and ONNX Runtime does so once, at load, since it folds constants.
"""

# onnx generates its types at run time.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import json
import math
import struct
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from clipita.convert.quantize import BLOCK, Array
from clipita.errors import CheckpointError
from clipita.towers.config import (
    BertConfig,
    DualConfig,
    EfficientNetLiteConfig,
    ProjectionConfig,
    block_shapes,
    same_padding,
)

OPSET = 20
_IR_VERSION = 10  # both are read by ONNX Runtime from 1.18 on
_INLINE_ELEMENTS = 64  # below, a weight is copied into the graph: ONNX Runtime wants small ones there
_MICROSOFT = "com.microsoft"
_NORM_FLOOR = 1e-12  # of a vector of zeros, so that it gives zeros and not NaN


def image_graph(config: DualConfig, weights: bytes, file_name: str, *, pooled: bool = False) -> onnx.ModelProto:
    """The graph "pixels" uint8 (B, S, S, 3) -> "image_embeddings" float32 (B, E).

    Args:
        config: the architecture.
        weights: contents of the safetensors file; names as `clipita.towers.dual` gives them, convolutions folded.
        file_name: how the file is called beside the graph.
        pooled: end before the projection, at "image_features" (B, D): what training caches of a locked tower.

    Raises:
        CheckpointError: a weight is missing.
    """
    graph = _Graph(weights, file_name)
    size = config.preprocessing.image_size
    x = _normalised_pixels(graph, config)
    features = _efficientnet(graph, x, config.image, "image.", size)
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["B", size, size, 3])
    if pooled:
        return graph.finish("image", [pixels], features, "image_features", config.image.features)
    embeddings = _projection(graph, features, config.image_projection, "image_projection.")
    return graph.finish("image", [pixels], _unit_norm(graph, embeddings), "image_embeddings", config.embed_dim)


def text_graph(config: DualConfig, weights: bytes, file_name: str, *, pooled: bool = False) -> onnx.ModelProto:
    """The graph "input_ids", "attention_mask" int64 (B, L) -> "text_embeddings" float32 (B, E); as `image_graph`."""
    graph = _Graph(weights, file_name)
    features = _bert(graph, config.text, "text.")
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["B", "L"]) for name in ("input_ids", "attention_mask")
    ]
    if pooled:
        return graph.finish("text", inputs, features, "text_features", config.text.features)
    embeddings = _projection(graph, features, config.text_projection, "text_projection.")
    return graph.finish("text", inputs, _unit_norm(graph, embeddings), "text_embeddings", config.embed_dim)


def _normalised_pixels(graph: "_Graph", config: DualConfig) -> str:  # uint8 (B, S, S, 3) -> float32 (B, 3, S, S)
    mean, std = (
        np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (config.preprocessing.mean, config.preprocessing.std)
    )
    # Not folded into the first kernel: SAME pads with zeros after the normalisation, and would then pad with the mean.
    x = graph.node("Cast", graph.node("Transpose", "pixels", perm=[0, 3, 1, 2]), to=TensorProto.FLOAT)
    return graph.node("Mul", graph.node("Sub", x, graph.constant(mean)), graph.constant(1 / std))


def _efficientnet(graph: "_Graph", x: str, config: EfficientNetLiteConfig, prefix: str, size: int) -> str:
    def conv(x: str, name: str, kernel: int = 1, stride: int = 1, groups: int = 1) -> str:
        before, after = same_padding(size, kernel, stride)
        weight, bias = graph.dense(f"{prefix}{name}.kernel"), graph.dense(f"{prefix}{name}.bias")
        pads, strides = [before, before, after, after], [stride, stride]
        return graph.node("Conv", x, weight, bias, pads=pads, strides=strides, group=groups)

    def relu6(x: str) -> str:
        return graph.node("Clip", x, graph.constant(np.float32(0)), graph.constant(np.float32(6)))

    x = relu6(conv(x, "stem", 3, 2))
    size = -(-size // 2)
    for index, shape in enumerate(block_shapes(config)):
        name = f"blocks.{index}."
        y = relu6(conv(x, name + "expand")) if shape.has_expansion else x
        y = relu6(conv(y, name + "depthwise", shape.kernel, shape.stride, groups=shape.expanded))
        size = -(-size // shape.stride)
        y = conv(y, name + "project")
        x = graph.node("Add", x, y) if shape.has_skip else y
    return graph.node("Flatten", graph.node("GlobalAveragePool", relu6(conv(x, "head"))))  # (B, features)


def _bert(graph: "_Graph", config: BertConfig, prefix: str) -> str:  # -> (B, D)
    def linear(x: str, name: str) -> str:
        return graph.node("Add", graph.matmul(x, f"{name}.kernel"), graph.dense(f"{name}.bias"))

    def norm(x: str, name: str) -> str:
        scale, bias = graph.dense(f"{name}.scale"), graph.dense(f"{name}.bias")
        return graph.node("LayerNormalization", x, scale, bias, axis=-1, epsilon=config.epsilon)

    length = graph.node("Shape", "input_ids", start=1, end=2)
    zero, one = graph.constant(np.array([0])), graph.constant(np.array([1]))
    positions = graph.node("Slice", graph.dense(f"{prefix}position.embedding"), zero, length, zero)  # (L, D)
    token_type = graph.node("Slice", graph.dense(f"{prefix}token_type.embedding"), zero, one, zero)  # (1, D)
    x = graph.rows(f"{prefix}word.embedding", "input_ids")
    x = norm(graph.node("Add", x, graph.node("Add", positions, token_type)), f"{prefix}norm")
    mask = graph.node("Cast", "attention_mask", to=TensorProto.INT32)
    for index in range(config.layers):
        layer = f"{prefix}layers.{index}."
        q, k, v = (linear(x, layer + name) for name in ("query", "key", "value"))
        attended = graph.node("MultiHeadAttention", q, k, v, "", mask, domain=_MICROSOFT, num_heads=config.heads)
        x = norm(graph.node("Add", x, linear(attended, layer + "output")), layer + "attention_norm")
        y = linear(graph.node("Gelu", linear(x, layer + "mlp_in")), layer + "mlp_out")
        x = norm(graph.node("Add", x, y), layer + "mlp_norm")
    if config.pooling == "cls":
        return graph.node("Gather", x, graph.constant(np.array(0)), axis=1)
    weights = graph.node("Unsqueeze", graph.node("Cast", mask, to=TensorProto.FLOAT), graph.constant(np.array([2])))
    total = graph.node("ReduceSum", graph.node("Mul", x, weights), one, keepdims=0)
    return graph.node("Div", total, graph.node("ReduceSum", weights, one, keepdims=0))


def _projection(graph: "_Graph", x: str, config: ProjectionConfig, prefix: str) -> str:
    y = graph.matmul(x, f"{prefix}linear.kernel")
    if config.bias:
        y = graph.node("Add", y, graph.dense(f"{prefix}linear.bias"))
    if config.hidden is None:
        return y
    hidden = graph.node("Add", graph.matmul(x, f"{prefix}mlp_in.kernel"), graph.dense(f"{prefix}mlp_in.bias"))
    residual = graph.matmul(graph.node("Gelu", hidden), f"{prefix}mlp_out.kernel")
    return graph.node("Add", y, graph.node("Add", residual, graph.dense(f"{prefix}mlp_out.bias")))


def _unit_norm(graph: "_Graph", x: str) -> str:
    norm = graph.node("ReduceL2", x, graph.constant(np.array([-1])), keepdims=1)
    return graph.node("Div", x, graph.node("Max", norm, graph.constant(np.float32(_NORM_FLOOR))))


class _Graph:
    """Nodes in order of execution; each value has the name that the method making it returns."""

    def __init__(self, weights: bytes, file_name: str) -> None:
        self.weights = weights
        self.file_name = file_name
        self.places = _safetensors_places(weights)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.dequantized: dict[str, str] = {}

    def node(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        output = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], output, domain=domain or None, **attributes))
        return output

    def constant(self, value: Array | np.float32) -> str:
        array = np.asarray(value)
        name = f"constant_{array.dtype}_{array.ravel().tolist()}_{array.ndim}".replace(" ", "")
        self.initializers.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def dense(self, name: str) -> str:
        """The weight `name` as float32."""
        if name not in self.dequantized:
            self.dequantized[name] = self._dequantize(name)
        return self.dequantized[name]

    def matmul(self, x: str, name: str) -> str:
        """(..., inputs) times the kernel (inputs, outputs)."""
        if f"{name}.int4" not in self.places:
            return self.node("MatMul", x, self.dense(name))
        # On two AVX-512 cores the twelve layers of a 384-wide BERT load in 31 ms this way, against 130 ms for int8 that
        # is folded into float32, and run as fast. accuracy_level=4 would be up to twice as fast on one short text and
        # no faster on a batch, for a cosine of 0.9999: the level stays at float32.
        packed, scale = self._stored(f"{name}.int4"), self._float(f"{name}.scale")
        outputs, blocks, _ = self.places[f"{name}.int4"].shape
        sizes = {"K": blocks * BLOCK, "N": outputs, "bits": 4, "block_size": BLOCK}
        return self.node("MatMulNBits", x, packed, scale, domain=_MICROSOFT, **sizes)

    def rows(self, name: str, indices: str) -> str:
        """Rows of the embedding `name` as float32 (..., D); only those that are asked for are dequantized."""
        if f"{name}.int4" in self.places:
            packed = self.node("Gather", self._stored(f"{name}.int4"), indices)  # uint8 (B, L, D / 32, 16)
            scale = self.node("Gather", self._stored(f"{name}.scale"), indices)  # float16 (B, L, D / 32)
            low = self.node("BitwiseAnd", packed, self.constant(np.array(15, np.uint8)))
            high = self.node("BitShift", packed, self.constant(np.array(4, np.uint8)), direction="RIGHT")
            axis = self.constant(np.array([-1]))
            pairs = self.node("Concat", *(self.node("Unsqueeze", half, axis) for half in (low, high)), axis=-1)
            codes = self.node("Cast", pairs, to=TensorProto.FLOAT)  # (B, L, D / 32, 16, 2)
            codes = self.node("Sub", codes, self.constant(np.float32(8)))
            scale = self.node("Cast", scale, to=TensorProto.FLOAT)
            scale = self.node("Unsqueeze", scale, self.constant(np.array([-2, -1])))
            width = self.places[f"{name}.int4"].shape[1] * BLOCK
            return self.node("Reshape", self.node("Mul", codes, scale), self.constant(np.array([0, 0, width])))
        rows = self.node("Gather", self._stored(name), indices)
        if self.places[name].dtype in ("F16", "I8"):
            rows = self.node("Cast", rows, to=TensorProto.FLOAT)
        if self.places[name].dtype == "I8":
            scale = self.node("Gather", self._stored(f"{name}.scale"), indices)  # (B, L, 1)
            rows = self.node("Mul", rows, self.node("Cast", scale, to=TensorProto.FLOAT))
        return rows

    def finish(
        self, name: str, inputs: list[onnx.ValueInfoProto], result: str, output: str, width: int
    ) -> onnx.ModelProto:
        """The model whose only output is the value `result`, called `output`."""
        self.nodes.append(helper.make_node("Identity", [result], [output], output))
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["B", width])]
        graph = helper.make_graph(self.nodes, name, inputs, outputs, list(self.initializers.values()))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(_MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="clipita")

    def _dequantize(self, name: str) -> str:
        if name in self.places and self.places[name].dtype == "I8":
            codes = self.node("Cast", self._stored(name), to=TensorProto.FLOAT)
            return self.node("Mul", codes, self._float(f"{name}.scale"))
        return self._float(name)

    def _float(self, name: str) -> str:
        stored = self._stored(name)
        return self.node("Cast", stored, to=TensorProto.FLOAT) if self.places[name].dtype == "F16" else stored

    def _stored(self, name: str) -> str:
        """The initializer with the numbers as they are in the file."""
        if name not in self.places:
            raise CheckpointError(f"the weights lack '{name}'")
        place = self.places[name]
        if name not in self.initializers:
            tensor = TensorProto(name=name, data_type=_ONNX_DTYPES[place.dtype], dims=place.shape)
            if math.prod(place.shape) <= _INLINE_ELEMENTS:
                tensor.raw_data = bytes(self.weights[place.offset : place.offset + place.length])
            else:
                tensor.data_location = TensorProto.EXTERNAL
                where = {"location": self.file_name, "offset": place.offset, "length": place.length}
                for key, value in where.items():
                    tensor.external_data.add(key=key, value=str(value))
            self.initializers[name] = tensor
        return name


_ONNX_DTYPES = {
    "F32": TensorProto.FLOAT,
    "F16": TensorProto.FLOAT16,
    "I8": TensorProto.INT8,
    "U8": TensorProto.UINT8,
}


class _Place(NamedTuple):
    """Where a safetensors file has a tensor: bytes `offset` to `offset + length` of the whole file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


def _safetensors_places(weights: bytes) -> dict[str, _Place]:
    """Source: the safetensors format: the header's length as uint64, the header in JSON, then the numbers."""
    (header_length,) = struct.unpack_from("<Q", weights)
    header = json.loads(bytes(weights[8 : 8 + header_length]))
    header.pop("__metadata__", None)
    start = 8 + header_length
    return {
        name: _Place(entry["dtype"], tuple(entry["shape"]), start + begin, end - begin)
        for name, entry in header.items()
        for begin, end in [entry["data_offsets"]]
    }

"""Build an ONNX graph whose weights lie in a safetensors file beside it."""

# onnx generates its types at run time.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import math
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from clipita.convert.weights.quantize import BLOCK
from clipita.convert.weights.safetensors_file import Place, StoredWeights
from clipita.errors import CheckpointError
from clipita.system.arrays import Array

OPSET = 20
_IR_VERSION = 10  # ONNX Runtime reads this and the opset from 1.18 on
_INLINE_ELEMENTS = 64  # smaller weights are copied into the graph, where ONNX Runtime wants them
MICROSOFT = "com.microsoft"
_LEAST_ROW = np.float32(1e-6)  # a row of zeros would be divided by 0


class Graph:
    """Collect the nodes of a graph in order of execution. Each method returns the name of the value that it makes.

    Args:
        weights: The places of the weights in their file.
        portable: Use operators of the ONNX standard only, and none of ONNX Runtime's own.
    """

    def __init__(self, weights: StoredWeights, *, portable: bool = False) -> None:
        self.weights = weights
        self.portable = portable
        self.places = weights.places
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.dequantized: dict[str, str] = {}
        self.in_bytes: dict[tuple[str, bytes], tuple[str, str, str]] = {}

    def node(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output."""
        output = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], output, domain=domain or None, **attributes))
        return output

    def constant(self, value: Array | np.float32) -> str:
        """Add a constant; equal ones are added once."""
        array = np.asarray(value)
        name = f"constant_{array.dtype}_{array.ravel().tolist()}_{array.ndim}".replace(" ", "")
        self.initializers.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def dense(self, name: str) -> str:
        """Read the weight `name` as float32."""
        if name not in self.dequantized:
            self.dequantized[name] = self._dequantize(name)
        return self.dequantized[name]

    def numbers(self, name: str) -> Array:
        """Read the stored numbers of `name` themselves."""
        place = self._place(name)
        return np.frombuffer(self.weights.read(place), _NUMPY_DTYPES[place.dtype]).reshape(place.shape)

    def codes(self, name: str) -> tuple[str, str]:
        """Return the int8 codes of the kernel `name` (outputs, ...) and their scales as float16 (outputs,).

        Raises:
            CheckpointError: It is not stored as int8.
        """
        if (dtype := self._place(name).dtype) != "I8":
            raise CheckpointError(
                f"the kernel '{name}' is multiplied in integers, but stored as {dtype}; store it as I8"
            )
        scale = f"{name}.scale"
        return self._stored(name), self._stored(scale, (self._place(scale).shape[0],))

    def matmul(self, x: str, name: str) -> str:
        """Multiply (..., inputs) by the kernel (inputs, outputs)."""
        if f"{name}.int7" in self.places:
            return self._integer_matmul(x, name)
        if f"{name}.int4" not in self.places or self.portable:
            return self.node("MatMul", x, self.dense(name))
        # On two AVX-512 cores the twelve layers of a 384-wide BERT load in 31 ms this way, against 130 ms for int8 that
        # is folded into float32, and run as fast. accuracy_level=4 would be up to twice as fast on one short text and
        # no faster on a batch, but change embeddings to a cosine of 0.9999: the level stays at float32.
        packed, scale = self._stored(f"{name}.int4"), self._float(f"{name}.scale")
        outputs, blocks, _ = self.places[f"{name}.int4"].shape
        sizes = {"K": blocks * BLOCK, "N": outputs, "bits": 4, "block_size": BLOCK}
        return self.node("MatMulNBits", x, packed, scale, domain=MICROSOFT, **sizes)

    def linear(self, x: str, name: str, *, bias: bool = True, uneven: bool = False) -> str:
        """Apply the linear layer `name`: (..., inputs) -> (..., outputs).

        With `uneven`, some rows of `x` are much larger than others: in integers, each row has a scale of its own.
        """
        kernel, summand = f"{name}.kernel", self.dense(f"{name}.bias") if bias else ""
        if f"{kernel}.int7" in self.places:
            if uneven:
                y = self._integer_matmul_by_rows(x, kernel)
            elif self.portable:
                y = self._integer_matmul(x, kernel)
            else:
                return self._integer_matmul(x, kernel, summand)  # adds it in the same pass
        else:
            y = self.matmul(x, kernel)
        return self.node("Add", y, summand) if bias else y

    def layer_norm(self, x: str, name: str, epsilon: float) -> str:
        """Normalize over the last axis by the layer norm `name`."""
        scale, bias = self.dense(f"{name}.scale"), self.dense(f"{name}.bias")
        return self.node("LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon)

    def rows(self, name: str, indices: str) -> str:
        """Look up rows of the embedding `name`, as float32 (..., D); only these rows are dequantized."""
        if f"{name}.int4" in self.places:
            packed = self.node("Gather", self._stored(f"{name}.int4"), indices)  # uint8 (B, L, D / 32, 16)
            scale = self.node("Gather", self._stored(f"{name}.scale"), indices)  # float16 (B, L, D / 32)
            return self._unpacked(packed, scale, [0, 0, self.places[f"{name}.int4"].shape[1] * BLOCK])
        rows = self.node("Gather", self._stored(name), indices)
        if self.places[name].dtype in ("F16", "I8"):
            rows = self.node("Cast", rows, to=TensorProto.FLOAT)
        if self.places[name].dtype == "I8":
            scale = self.node("Gather", self._stored(f"{name}.scale"), indices)  # (B, L, 1)
            rows = self.node("Mul", rows, self.node("Cast", scale, to=TensorProto.FLOAT))
        return rows

    def finish(
        self, name: str, inputs: list[onnx.ValueInfoProto], result: str, output: str, *shape: int
    ) -> onnx.ModelProto:
        """Return the model whose only output is the value `result`, under the name `output`, of shape (B, *shape)."""
        self.nodes.append(helper.make_node("Identity", [result], [output], output))
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["B", *shape])]
        graph = helper.make_graph(self.nodes, name, inputs, outputs, list(self.initializers.values()))
        domains = {node.domain for node in self.nodes}
        opsets = [helper.make_opsetid("", OPSET), *(helper.make_opsetid(MICROSOFT, 1) for _ in domains - {""})]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="clipita")

    def _integer_matmul(self, x: str, name: str, bias: str = "") -> str:
        factors = f"{name}.inputs"
        place = self.places.get(factors)
        key = x, self.weights.read(place) if place else b""
        if key not in self.in_bytes:  # query, key and value share one input and its factors
            scaled = self._times_factors(x, name)
            codes, scale, zero = (f"{scaled}_{part}" for part in ("codes", "scale", "zero"))
            self.nodes.append(helper.make_node("DynamicQuantizeLinear", [scaled], [codes, scale, zero], codes))
            self.in_bytes[key] = codes, scale, zero
        return self._product_of_codes(*self.in_bytes[key], name, bias)

    def _integer_matmul_by_rows(self, x: str, name: str) -> str:
        scaled = self._times_factors(x, name)
        largest = self.node("ReduceMax", self.node("Abs", scaled), self.constant(np.array([-1])), keepdims=1)
        largest = self.node("Max", largest, self.constant(_LEAST_ROW))
        scale, zero = self.constant(np.float32(1 / 127)), self.constant(np.array(128, np.uint8))
        codes = self.node("QuantizeLinear", self.node("Div", scaled, largest), scale, zero)
        return self.node("Mul", self._product_of_codes(codes, scale, zero, name), largest)

    def _times_factors(self, x: str, name: str) -> str:
        factors = f"{name}.inputs"
        return self.node("Mul", x, self._stored(factors)) if factors in self.places else x

    def _product_of_codes(self, codes: str, scale: str, zero: str, name: str, bias: str = "") -> str:
        weights, steps = self._stored(f"{name}.int7"), self._stored(f"{name}.scale")
        middle = self.constant(np.array(0, np.int8))
        if not self.portable:
            inputs = (codes, weights, scale, steps, zero, middle, *([bias] if bias else []))
            return self.node("MatMulIntegerToFloat", *inputs, domain=MICROSOFT)
        product = self.node("Cast", self.node("MatMulInteger", codes, weights, zero, middle), to=TensorProto.FLOAT)
        return self.node("Mul", product, self.node("Mul", steps, scale))

    def _dequantize(self, name: str) -> str:
        if f"{name}.int4" in self.places:  # a kernel
            packed, scale = self._stored(f"{name}.int4"), self._stored(f"{name}.scale")
            rows = self._unpacked(packed, scale, [0, self.places[f"{name}.int4"].shape[1] * BLOCK])
            return self.node("Transpose", rows, perm=[1, 0])
        if name in self.places and self.places[name].dtype == "I8":
            codes = self.node("Cast", self._stored(name), to=TensorProto.FLOAT)
            return self.node("Mul", codes, self._float(f"{name}.scale"))
        return self._float(name)

    def _unpacked(self, packed: str, scale: str, shape: list[int]) -> str:
        """Dequantize int4 codes (..., blocks, 16) with their scales (..., blocks) to float32 of this shape."""
        low = self.node("BitwiseAnd", packed, self.constant(np.array(15, np.uint8)))
        high = self.node("BitShift", packed, self.constant(np.array(4, np.uint8)), direction="RIGHT")
        axis = self.constant(np.array([-1]))
        pairs = self.node("Concat", *(self.node("Unsqueeze", half, axis) for half in (low, high)), axis=-1)
        codes = self.node("Cast", pairs, to=TensorProto.FLOAT)  # (..., blocks, 16, 2)
        codes = self.node("Sub", codes, self.constant(np.float32(8)))
        scale = self.node("Cast", scale, to=TensorProto.FLOAT)
        scale = self.node("Unsqueeze", scale, self.constant(np.array([-2, -1])))
        return self.node("Reshape", self.node("Mul", codes, scale), self.constant(np.array(shape)))

    def _float(self, name: str) -> str:
        stored = self._stored(name)
        return self.node("Cast", stored, to=TensorProto.FLOAT) if self.places[name].dtype == "F16" else stored

    def _place(self, name: str) -> Place:
        if name not in self.places:
            raise CheckpointError(f"the weights lack '{name}'")
        return self.places[name]

    def _stored(self, name: str, shape: tuple[int, ...] | None = None) -> str:
        """Return the initializer that refers to the numbers `name` as they are in the file, or in another shape."""
        place = self._place(name)
        if name not in self.initializers:
            tensor = TensorProto(name=name, data_type=_ONNX_DTYPES[place.dtype], dims=shape or place.shape)
            if math.prod(place.shape) <= _INLINE_ELEMENTS:
                tensor.raw_data = self.weights.read(place)
            else:
                tensor.data_location = TensorProto.EXTERNAL
                where = {"location": self.weights.name, "offset": place.offset, "length": place.length}
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
_NUMPY_DTYPES = {"F32": np.float32, "F16": np.float16, "I8": np.int8, "U8": np.uint8}

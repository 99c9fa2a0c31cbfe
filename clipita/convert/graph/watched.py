"""Have a graph say how large the values are that its products and convolutions read and write."""

# onnx generates its types at run time.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def watched(graph: bytes) -> tuple[bytes, dict[str, str]]:
    """Add outputs to a graph: for each input of products with kernels, the largest magnitude of each channel.

    Args:
        graph: The contents of an ONNX file over float32 weights.

    Returns:
        The contents of the file with these outputs, (inputs,) each and in place of its own, and for each kernel the
        name of its output.
    """
    model = onnx.load_from_string(graph)
    sizes = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer if len(tensor.dims) == 2}
    output_of: dict[str, str] = {}
    del model.graph.output[:]
    added: list[onnx.NodeProto] = []
    for node in list(model.graph.node):
        if node.op_type != "MatMul" or node.input[1] not in sizes or not node.input[1].endswith(".kernel"):
            continue
        x, kernel = node.input
        largest = f"{x}_largest"
        if largest not in output_of.values():
            shape, axis = f"{x}_shape", f"{x}_axis"
            constants = {shape: np.array([-1, sizes[kernel]]), axis: np.array([0])}
            model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
            added += [
                helper.make_node("Abs", [x], [f"{x}_abs"]),
                helper.make_node("Reshape", [f"{x}_abs", shape], [f"{x}_rows"]),
                helper.make_node("ReduceMax", [f"{x}_rows", axis], [largest], keepdims=0),
            ]
            output = helper.make_tensor_value_info(largest, TensorProto.FLOAT, [sizes[kernel]])
            model.graph.output.append(output)
        output_of[kernel] = largest
    model.graph.node.extend(added)
    return model.SerializeToString(), output_of


def watched_convolutions(graph: bytes) -> bytes:
    """Replace the outputs of a graph: for each convolution, those that tell what it reads and writes.

    Args:
        graph: The contents of an ONNX file over float32 weights.

    Returns:
        The contents of the file with these outputs for a convolution of the name N: `N.mean` (inputs,), the mean of
        each channel that it reads; `N.input_least`, `N.input_most`, `N.output_least`, `N.output_most`, scalars.
    """
    model = onnx.load_from_string(graph)
    del model.graph.output[:]
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, 2, 3]), "all_but_channels"))
    for node in list(model.graph.node):
        if node.op_type != "Conv":
            continue
        name = node.input[1].removesuffix(".kernel")
        added = [helper.make_node("ReduceMean", [node.input[0], "all_but_channels"], [f"{name}.mean"], keepdims=0)]
        for end, value in (("input", node.input[0]), ("output", node.output[0])):
            for operator, kind in (("ReduceMin", "least"), ("ReduceMax", "most")):
                added.append(helper.make_node(operator, [value], [f"{name}.{end}_{kind}"], keepdims=0))
        model.graph.node.extend(added)
        outputs = [output for node in added for output in node.output]
        model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs)
    return model.SerializeToString()

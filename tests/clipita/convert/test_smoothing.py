"""Products in integers whose activations have outliers: what is measured of them, and how near they are to float32."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from clipita.convert.graph.builder import Graph
from clipita.convert.graph.watched import watched
from clipita.convert.weights.quantize import INTEGER, plan
from clipita.convert.weights.safetensors_file import StoredWeights, write_weights
from clipita.convert.weights.smoothing import smoothing

INPUTS, OUTPUTS, TOKENS = 96, 64, 40
RANDOM = np.random.default_rng(0)
TABLE = {
    "a.kernel": RANDOM.standard_normal((INPUTS, OUTPUTS), dtype=np.float32),
    "b.kernel": RANDOM.standard_normal((INPUTS, OUTPUTS), dtype=np.float32),
    "a.bias": RANDOM.standard_normal(OUTPUTS, dtype=np.float32),
    "b.bias": RANDOM.standard_normal(OUTPUTS, dtype=np.float32),
    "words.word.embedding": RANDOM.standard_normal((4, 8), dtype=np.float32),
}


def activations() -> np.ndarray:
    """Three channels are 60 times as large as the others, as in trained transformers."""
    x = RANDOM.standard_normal((1, TOKENS, INPUTS), dtype=np.float32)
    x[..., [3, 40, 77]] *= 60
    return x


def graph_of(folder: Path, *, uneven: bool, portable: bool, formats: dict, factors: dict) -> onnx.ModelProto:
    write_weights(folder / "weights.safetensors", plan(TABLE, formats, factors))
    graph = Graph(StoredWeights.from_file(folder / "weights.safetensors"), portable=portable)
    y = graph.node("Add", *(graph.linear("x", name, uneven=uneven) for name in ("a", "b")))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", TOKENS, INPUTS])
    return graph.finish("products", [x], y, "y", TOKENS, OUTPUTS)


def run(folder: Path, model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    onnx.save(model, folder / "graph.onnx")
    session = onnxruntime.InferenceSession(folder / "graph.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def exact(x: np.ndarray) -> np.ndarray:
    return x @ TABLE["a.kernel"] + TABLE["a.bias"] + x @ TABLE["b.kernel"] + TABLE["b.bias"]


def error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def measured(folder: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    """The largest inputs of both kernels, as the float32 graph says them."""
    graph, output_of = watched(
        graph_of(folder, uneven=False, portable=False, formats={}, factors={}).SerializeToString()
    )
    found = run(folder, onnx.load_from_string(graph), x)
    np.testing.assert_allclose(found, np.abs(x).max(axis=(0, 1)))
    return {kernel: found if output == output_of["a.kernel"] else None for kernel, output in output_of.items()}


def test_kernels_that_share_their_input_share_its_factors(tmp_path: Path) -> None:
    factors = smoothing(TABLE, measured(tmp_path, activations()))
    assert factors.keys() == {"a.kernel", "b.kernel"}
    assert factors["a.kernel"] is factors["b.kernel"]
    assert (factors["a.kernel"][[3, 40, 77]] < np.delete(factors["a.kernel"], [3, 40, 77]).min()).all()
    graph = graph_of(tmp_path, uneven=False, portable=False, formats=INTEGER, factors=factors)
    assert sum(node.op_type == "DynamicQuantizeLinear" for node in graph.graph.node) == 1


@pytest.mark.parametrize("portable", [False, True])
def test_factors_take_most_of_the_error_that_outliers_bring(tmp_path: Path, portable: bool) -> None:
    x = activations()
    options = {"uneven": False, "portable": portable, "formats": INTEGER}
    rough = run(tmp_path, graph_of(tmp_path, factors={}, **options), x)
    smooth = run(tmp_path, graph_of(tmp_path, factors=smoothing(TABLE, measured(tmp_path, x)), **options), x)
    assert error(smooth, exact(x)) < 0.5 * error(rough, exact(x)) < 0.02


@pytest.mark.parametrize("portable", [False, True])
def test_a_token_much_larger_than_the_others_does_not_harm_them(tmp_path: Path, portable: bool) -> None:
    x = RANDOM.standard_normal((2, TOKENS, INPUTS), dtype=np.float32)
    x[1, 7] *= 200
    x[0, 3] = 0
    options = {"portable": portable, "formats": INTEGER, "factors": {}}
    by_rows = run(tmp_path, graph_of(tmp_path, uneven=True, **options), x)
    together = run(tmp_path, graph_of(tmp_path, uneven=False, **options), x)
    assert error(by_rows[0], exact(x)[0]) < 0.02 < 0.2 < error(together[0], exact(x)[0])
    np.testing.assert_array_equal(by_rows[0], run(tmp_path, graph_of(tmp_path, uneven=True, **options), x[:1])[0])


def test_a_channel_that_is_never_used_is_no_division_by_zero() -> None:
    largest = np.ones(INPUTS, np.float32)
    largest[5] = 0
    table = {"a.kernel": TABLE["a.kernel"].copy()}
    table["a.kernel"][9] = 0
    factors = smoothing(table, {"a.kernel": largest})["a.kernel"]
    assert np.isfinite(factors).all()
    assert (factors > 0).all()

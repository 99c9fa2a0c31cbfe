"""Convolutions in integers: that ONNX Runtime computes them so, and how near they are to float32."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from safetensors.numpy import load_file, save_file
from support.tiny import make_tiny_bundle

from clipita.backends.calibration import convolution_activations
from clipita.backends.flax import FlaxBackend
from clipita.backends.onnx import OnnxBackend
from clipita.bundles.bundle import WEIGHTS, Bundle
from clipita.convert.graph.towers import image_graph
from clipita.convert.rewrite import rewrite
from clipita.convert.samples import pictures
from clipita.convert.weights.integer_convolutions import Activations, integer_convolutions
from clipita.convert.weights.quantize import Stored, dequantize, plan
from clipita.convert.weights.safetensors_file import StoredWeights, parameter_counts
from clipita.errors import CheckpointError
from clipita.towers.opened import OpenedModel

PIXELS = pictures(40, 24)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    """A bundle in float32, and the same in integers."""
    folder = tmp_path_factory.mktemp("integers")
    exact = make_tiny_bundle(folder / "exact", "float32")
    seen = convolution_activations(exact, PIXELS[:16])
    return exact, rewrite(OpenedModel.of(exact), folder / "made", precision="int8", activations=seen)


def test_is_near_to_float32_on_both_backends(bundles: tuple[Bundle, Bundle]) -> None:
    exact, made = bundles
    expected = OnnxBackend(exact, precision="fp32").encode_pixels(PIXELS[16:])
    for backend in (OnnxBackend(made, precision="int8"), FlaxBackend(made, precision="int8")):
        assert (backend.encode_pixels(PIXELS[16:]) * expected).sum(-1).min() > 0.995
    single = OnnxBackend(made, precision="int8").encode_pixels(PIXELS[16:17])
    together = OnnxBackend(made, precision="int8").encode_pixels(PIXELS[16:])
    np.testing.assert_allclose(single[0], together[0], atol=1e-6)  # no picture depends on the others of its batch


def test_the_runtime_multiplies_all_but_two_in_integers(bundles: tuple[Bundle, Bundle], tmp_path: Path) -> None:
    _, made = bundles
    onnx.checker.check_model(str(made.path("image.onnx")))
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(made.path("image.onnx"), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(tmp_path / "optimized.onnx", load_external_data=False).graph
    operators = [node.op_type for node in graph.node]
    convolutions = sum(name.startswith("image.") and name.endswith(".kernel") for name in load_file(made.path(WEIGHTS)))
    assert operators.count("Conv") == 2  # the stem, and the first that is depthwise
    assert operators.count("QLinearConv") == convolutions - 2


def test_positions_are_near_to_float32(bundles: tuple[Bundle, Bundle]) -> None:
    exact, made = bundles
    expected = OnnxBackend(exact, precision="fp32").encode_positions(PIXELS[16:])
    found = OnnxBackend(made, precision="int8").encode_positions(PIXELS[16:])
    assert np.linalg.norm(found - expected) < 0.1 * np.linalg.norm(expected)


def test_ranges_are_no_weights(bundles: tuple[Bundle, Bundle]) -> None:
    exact, made = bundles
    assert dequantize(load_file(made.path(WEIGHTS))).keys() == dequantize(load_file(exact.path(WEIGHTS))).keys()
    assert parameter_counts(made.path(WEIGHTS)) == parameter_counts(exact.path(WEIGHTS))
    again = rewrite(OpenedModel.of(made), made.folder.parent / "again", precision="fp32")
    floats, integers = OnnxBackend(again, precision="fp32"), OnnxBackend(made, precision="int8")
    assert (floats.encode_pixels(PIXELS) * integers.encode_pixels(PIXELS)).sum(-1).min() > 0.995


def test_a_bias_gives_back_what_rounding_took() -> None:
    random = np.random.default_rng(0)
    table = {
        "a.kernel": random.normal(size=(8, 6, 1, 1)).astype(np.float32),
        "a.bias": random.normal(size=8).astype(np.float32),
        "b.kernel": random.normal(size=(6, 1, 3, 3)).astype(np.float32),
        "b.bias": random.normal(size=6).astype(np.float32),
    }
    mean = random.uniform(1, 6, size=6).astype(np.float32)
    stored = plan(table, {"*.kernel": "int8"})
    found = integer_convolutions(stored, table, Activations({"a": mean, "b": mean}, {}))

    def outputs(weights: dict[str, np.ndarray]) -> np.ndarray:  # of pictures that have these means everywhere
        a = weights["a.kernel"].sum(axis=(2, 3)) @ mean + weights["a.bias"]
        return np.concatenate([a, weights["b.kernel"].sum(axis=(1, 2, 3)) * mean + weights["b.bias"]])

    def error(weights: dict[str, Stored]) -> float:
        restored = dequantize({name: values.array() for name, values in weights.items()})
        return float(np.abs(outputs(restored) - outputs(table)).max())

    assert error(found) < 1e-5 < 1e-3 < error(stored)


@pytest.mark.parametrize("broken", ["a range of nothing", "kernels in float16"])
def test_what_cannot_be_computed_in_integers_is_refused(
    bundles: tuple[Bundle, Bundle], tmp_path: Path, broken: str
) -> None:
    opened = OpenedModel.of(bundles[1])
    weights = load_file(opened.bundle.path(WEIGHTS))
    if broken == "a range of nothing":
        weights["image.head.input_range"] = np.array([2, 2], np.float32)
    else:
        weights["image.head.kernel"] = weights["image.head.kernel"].astype(np.float16)
    save_file(weights, tmp_path / WEIGHTS)
    with pytest.raises(
        CheckpointError, match=r"head\.input_range' goes from 2|head\.kernel' is multiplied in integers"
    ):
        image_graph(opened.towers, StoredWeights.from_file(tmp_path / WEIGHTS))

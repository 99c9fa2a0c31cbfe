"""Both backends on one bundle: the same weights, the same embeddings, in every format of the weights."""

import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from flax import nnx
from safetensors.numpy import load_file, save, save_file
from support.tiny import CONFIG, FORMATS, make_tiny_bundle, tiny_table

from clipita.backends.flax import FlaxBackend
from clipita.backends.onnx import OnnxBackend
from clipita.convert.graph.towers import image_graph, text_graph
from clipita.convert.layouts.efficientnet_lite import fold_batch_norm
from clipita.convert.weights.quantize import quantize
from clipita.convert.weights.safetensors_file import StoredWeights
from clipita.errors import BackendError, CheckpointError
from clipita.towers.config import DualConfig, ProjectionConfig
from clipita.towers.dual import DualEncoder
from clipita.towers.parameters import set_parameters

pytestmark = pytest.mark.slow

rng = np.random.default_rng(0)
PIXELS = rng.integers(0, 256, (5, 40, 40, 3)).astype(np.uint8)
IDS = rng.integers(0, CONFIG.text.vocabulary, (7, 11))
MASK = (np.arange(11) < np.array([11, 1, 2, 5, 8, 11, 3])[:, None]).astype(np.int64)


def difference(flax: FlaxBackend, ort: OnnxBackend) -> float:
    """The largest, of any number of any embedding."""
    images = flax.encode_pixels(PIXELS) - ort.encode_pixels(PIXELS)
    return float(max(np.abs(images).max(), np.abs(flax.encode_tokens(IDS, MASK) - ort.encode_tokens(IDS, MASK)).max()))


@pytest.mark.parametrize("formats", FORMATS)
def test_backends_agree(tmp_path: Path, formats: str) -> None:
    bundle = make_tiny_bundle(tmp_path, formats)
    (precision,) = bundle.config.precisions
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        flax, ort = FlaxBackend(bundle, precision=precision), OnnxBackend(bundle, precision=precision, threads=1)
        assert difference(flax, ort) < 1e-5


def test_in_bfloat16_only_the_rounding_differs(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, "float32")
    exact = FlaxBackend(bundle, precision="fp32")
    fast = FlaxBackend(bundle, precision="fp32", dtype=jnp.bfloat16)
    for encode, inputs in (("encode_pixels", (PIXELS,)), ("encode_tokens", (IDS, MASK))):
        expected, found = (getattr(backend, encode)(*inputs) for backend in (exact, fast))
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() > 1e-5  # it was computed in bfloat16
        assert (found * expected).sum(-1).min() > 0.999
    on_this_device = FlaxBackend(bundle, precision="fp32", dtype=None)
    if jax.default_backend() == "cpu":
        np.testing.assert_array_equal(on_this_device.encode_pixels(PIXELS), exact.encode_pixels(PIXELS))


def test_neither_the_batch_nor_the_padding_changes_a_row(tmp_path: Path) -> None:
    flax = FlaxBackend(make_tiny_bundle(tmp_path, "int8"), precision="int8")
    embeddings = flax.encode_tokens(IDS, MASK)
    assert embeddings.dtype == np.float32
    assert embeddings.shape == (7, 24)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(flax.encode_tokens(IDS[3:4, :5], MASK[3:4, :5]), embeddings[3:4], atol=1e-6)
    np.testing.assert_allclose(flax.encode_pixels(PIXELS[2:3]), flax.encode_pixels(PIXELS)[2:3], atol=1e-6)


def test_first_token_pooling_and_other_projections_agree(tmp_path: Path) -> None:
    config = replace(
        CONFIG,
        text=replace(CONFIG.text, pooling="cls"),
        image_projection=ProjectionConfig(None),
        text_projection=ProjectionConfig(16, bias=True),
    )
    bundle = make_tiny_bundle(tmp_path, "float32", config)
    assert DualConfig.from_bundle(bundle.config) == config
    flax, ort = FlaxBackend(bundle, precision="fp32"), OnnxBackend(bundle, precision="fp32", threads=1)
    assert difference(flax, ort) < 1e-5


def test_graphs_of_pooled_features(tmp_path: Path) -> None:
    table = tiny_table()
    weights = save(quantize(fold_batch_norm(table), {}))
    (tmp_path / "weights.safetensors").write_bytes(weights)
    model = nnx.eval_shape(lambda: DualEncoder(CONFIG, rngs=nnx.Rngs(0)))
    set_parameters(model, table)
    for build, inputs, features in (
        (image_graph, {"pixels": PIXELS}, nnx.jit(lambda model: model.image_features(PIXELS))(model)),
        (text_graph, {"input_ids": IDS, "attention_mask": MASK}, model.text_features(IDS, MASK)),
    ):
        stored = StoredWeights.from_file(tmp_path / "weights.safetensors")
        onnx.save(build(CONFIG, stored, pooled=True), tmp_path / "graph.onnx")
        (pooled,) = onnxruntime.InferenceSession(tmp_path / "graph.onnx").run(None, inputs)
        np.testing.assert_allclose(pooled, features, atol=1e-4)


def test_weights_exist_once(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path, "int4")
    for name in ("image.onnx", "text.onnx"):
        onnx.checker.check_model(str(tmp_path / name))
        for tensor in onnx.load(tmp_path / name, load_external_data=False).graph.initializer:
            assert np.prod(tensor.dims) <= 64 or tensor.data_location == onnx.TensorProto.EXTERNAL, tensor.name


def test_unknown_weights_and_fields_are_refused(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, "float32")
    with pytest.raises(CheckpointError, match="kind 'gan'"):
        DualConfig.from_bundle(replace(bundle.config, image={**bundle.config.image, "kind": "gan"}))
    with pytest.raises(CheckpointError, match="unknown key 'experts'"):
        DualConfig.from_bundle(replace(bundle.config, text={**bundle.config.text, "experts": 8}))
    with pytest.raises(BackendError, match="no precision 'int8'"):
        FlaxBackend(bundle, precision="int8")
    with pytest.raises(BackendError, match="up to 40 tokens, but a batch has 41"):
        FlaxBackend(bundle, precision="fp32").encode_tokens(np.ones((1, 41), np.int64), np.ones((1, 41), np.int64))


def test_formats_must_name_weights() -> None:
    with pytest.raises(ValueError, match=r"no weight is called \['txt\.\*'\]"):
        quantize(fold_batch_norm(tiny_table()), {"txt.*": "int8"})


@pytest.mark.parametrize(
    ("tower", "fields", "message"),
    [
        ("text", {"heads": 7}, "text: its width of 96 cannot be divided by 7 heads"),
        ("text", {"kind": ["bert"]}, "the text tower is of kind"),
        ("text", {"layers": 3}, "the weights do not fit the model: missing"),
        ("text", {"layers": 256}, "the weights do not fit the model: missing"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(
    tmp_path: Path, tower: str, fields: dict[str, object], message: str
) -> None:
    bundle = make_tiny_bundle(tmp_path, "float32")
    changed = replace(bundle.config, **{tower: {**getattr(bundle.config, tower), **fields}})
    start = time.process_time()
    with pytest.raises(CheckpointError, match=message):
        FlaxBackend(replace(bundle, config=changed), precision="fp32")
    assert time.process_time() - start < 4


def test_what_is_no_number_is_no_embedding(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, "float32")
    weights = load_file(bundle.path("weights.safetensors"))
    weights["text.word.embedding"][5] = np.nan  # of one piece alone
    save_file(weights, bundle.path("weights.safetensors"))
    backend = FlaxBackend(bundle, precision="fp32")
    ids = np.array([[6, 7], [5, 8]])
    with pytest.raises(CheckpointError, match=r"'tiny': the text tower gives numbers that are not .*input 2 of 2"):
        backend.encode_tokens(ids, np.ones_like(ids))

"""The text tower and the dual encoder on a tiny random model."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.tiny import CONFIG, tiny_table

from clipita.towers.config import DualConfig, ProjectionConfig
from clipita.towers.dual import DualEncoder, Projection, unit_norm
from clipita.towers.parameters import parameter_table, set_parameters

pytestmark = pytest.mark.usefixtures("strict_types")

rng = np.random.default_rng(0)
IDS = rng.integers(0, CONFIG.text.vocabulary, (3, 7))
MASK = (np.arange(7) < np.array([7, 4, 1])[:, None]).astype(np.int32)
PIXELS = rng.integers(0, 256, (2, 40, 40, 3)).astype(np.uint8)


def dual(config: DualConfig) -> DualEncoder:
    model = nnx.eval_shape(lambda: DualEncoder(config, rngs=nnx.Rngs(0)))
    set_parameters(model, tiny_table(config))
    return model


@pytest.mark.slow
def test_padding_and_batch_do_not_change_a_text() -> None:
    model = dual(CONFIG)
    features = np.asarray(model.text_features(IDS, MASK))
    assert features.shape == (3, CONFIG.text.width)
    for row, length in ((0, 7), (1, 4)):
        alone = model.text_features(IDS[row : row + 1, :length], MASK[row : row + 1, :length])
        np.testing.assert_allclose(alone[0], features[row], atol=1e-5)
    other_padding = np.where(MASK == 1, IDS, (IDS + 1) % CONFIG.text.vocabulary)
    np.testing.assert_allclose(model.text_features(other_padding, MASK), features, atol=1e-6)


@pytest.mark.slow
def test_order_and_pooling_matter() -> None:
    model = dual(CONFIG)
    first = dual(replace(CONFIG, text=replace(CONFIG.text, pooling="cls")))
    features = np.asarray(model.text_features(IDS, MASK))
    assert np.abs(model.text_features(IDS[:1, ::-1], MASK[:1]) - features[:1]).max() > 1e-3
    assert np.abs(first.text_features(IDS, MASK)[:2] - features[:2]).max() > 1e-3
    np.testing.assert_allclose(first.text_features(IDS, MASK)[2], features[2], atol=1e-6)  # of one token


@pytest.mark.slow
def test_call_is_the_sum_of_its_parts() -> None:
    model = dual(CONFIG)
    image, text = nnx.jit(lambda model, *inputs: model(*inputs))(model, PIXELS, IDS, MASK)
    features = nnx.jit(lambda model, pixels: model.image_features(pixels))(model, PIXELS.astype(np.float32))
    assert features.shape == (2, CONFIG.image.features)
    np.testing.assert_allclose(image, model.project_image(features), atol=1e-5)
    np.testing.assert_allclose(text, model.project_text(model.text_features(IDS, MASK)), atol=1e-5)
    for embeddings in (image, text):
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=-1), 1, atol=1e-6)


def test_a_projection_begins_as_its_linear_part() -> None:
    projection = Projection(8, 4, ProjectionConfig(16), rngs=nnx.Rngs(0))
    x = jnp.asarray(rng.normal(size=(5, 8)), jnp.float32)
    np.testing.assert_array_equal(projection(x), projection.linear(x))
    assert set(parameter_table(projection)) == {
        "linear.kernel", "mlp_in.kernel", "mlp_in.bias", "mlp_out.kernel", "mlp_out.bias"
    }  # fmt: skip


def test_unit_norm_at_zero() -> None:
    x = jnp.zeros((2, 3))
    np.testing.assert_array_equal(unit_norm(x), x)
    assert np.isfinite(jax.grad(lambda x: unit_norm(x).sum())(x)).all()


def test_parameters_round_trip() -> None:
    table = tiny_table(CONFIG)
    again = parameter_table(dual(CONFIG))
    assert table.keys() == again.keys()
    assert all((again[name] == values).all() for name, values in table.items())

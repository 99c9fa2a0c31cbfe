import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clipita_train.losses.contrastive import sigmoid_contrastive, softmax_contrastive

pytestmark = pytest.mark.usefixtures("strict_types")


def unit_rows(random, count, width=5):
    rows = random.normal(size=(count, width))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def slow_softmax(image, text, scale, positive, known):
    """The definition, pair by pair in float64."""
    logits = [[scale * float(np.dot(i, t)) for t in text] for i in image]
    directions = []
    for transposed in (False, True):
        rows = []
        for a in range(len(text) if transposed else len(image)):
            top, bottom = 0.0, 0.0
            others = range(len(image) if transposed else len(text))
            pairs = {b: (b, a) if transposed else (a, b) for b in others}
            for b in others:
                if known[pairs[b]] and positive[pairs[b]] > 0:
                    good = np.exp(logits[pairs[b][0]][pairs[b][1]])
                    bad = sum(
                        np.exp(logits[pairs[c][0]][pairs[c][1]])
                        for c in others
                        if known[pairs[c]] and positive[pairs[c]] == 0
                    )
                    top += positive[pairs[b]] * -np.log(good / (good + bad))
                    bottom += positive[pairs[b]]
            if bottom:
                rows.append(top / bottom)
        directions.append(sum(rows) / len(rows) if rows else 0.0)
    return sum(directions) / 2


def slow_sigmoid(image, text, scale, bias, positive, known):
    total, pictures = 0.0, 0
    for i in range(len(image)):
        pictures += any(known[i])
        for j in range(len(text)):
            if known[i, j]:
                z = scale * float(np.dot(image[i], text[j])) + bias
                total += positive[i, j] * np.log1p(np.exp(-z)) if positive[i, j] else np.log1p(np.exp(z))
    return total / max(pictures, 1)


def make_case(seed, images=4, texts=6):
    random = np.random.default_rng(seed)
    positive = random.choice([0.0, 0.0, 0.5, 1.0, 2.0], size=(images, texts))
    return unit_rows(random, images), unit_rows(random, texts), positive, random.random((images, texts)) < 0.8


def float32(*arrays):
    return [jnp.asarray(array, jnp.float32) for array in arrays]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_softmax_equals_its_definition(seed, scale):
    image, text, positive, known = make_case(seed)
    got = softmax_contrastive(*float32(image, text), logit_scale=scale, positive=jnp.float32(positive), known=known)
    np.testing.assert_allclose(got, slow_softmax(image, text, scale, positive, known), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_sigmoid_equals_its_definition(seed):
    image, text, positive, known = make_case(seed)
    got = sigmoid_contrastive(
        *float32(image, text), logit_scale=10.0, logit_bias=-10.0, positive=jnp.float32(positive), known=known
    )
    np.testing.assert_allclose(got, slow_sigmoid(image, text, 10.0, -10.0, positive, known), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_gradients_equal_differences_of_the_definition(seed):
    image, text, positive, known = make_case(seed)
    cases = {
        softmax_contrastive: (lambda i, t: slow_softmax(i, t, 20.0, positive, known), {}),
        sigmoid_contrastive: (lambda i, t: slow_sigmoid(i, t, 20.0, -10.0, positive, known), {"logit_bias": -10.0}),
    }
    for loss, (slow, more) in cases.items():
        got = jax.grad(
            lambda i, t, loss=loss, more=more: loss(
                i, t, logit_scale=20.0, positive=jnp.float32(positive), known=known, **more
            ),
            argnums=(0, 1),
        )(*float32(image, text))
        for which, gradient in enumerate(got):
            for index in np.ndindex(gradient.shape):
                step = np.zeros(gradient.shape)
                step[index] = 1e-5
                arrays = [image, text]
                ends = [slow(*(a + sign * step if k == which else a for k, a in enumerate(arrays))) for sign in (1, -1)]
                assert gradient[index] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-3, abs=1e-4)


def test_identity_pairs_give_the_clip_loss():
    random = np.random.default_rng(0)
    image, text = float32(unit_rows(random, 8), unit_rows(random, 8))
    logits = 20.0 * image @ text.T
    cross_entropy = -(jnp.diag(jax.nn.log_softmax(logits, 1)) + jnp.diag(jax.nn.log_softmax(logits, 0))).mean() / 2
    np.testing.assert_allclose(softmax_contrastive(image, text, logit_scale=20.0), cross_entropy, rtol=1e-5)


def test_equal_embeddings_give_the_logarithm_of_the_batch():
    same = jnp.ones((16, 4)) / 2
    np.testing.assert_allclose(softmax_contrastive(same, same, logit_scale=20.0), np.log(16), rtol=1e-6)


@pytest.mark.parametrize("loss", [softmax_contrastive, lambda *a, **k: sigmoid_contrastive(*a, logit_bias=-5.0, **k)])
def test_towers_can_be_exchanged(loss):
    random = np.random.default_rng(1)
    image, text = float32(unit_rows(random, 6), unit_rows(random, 6))
    positive = random.random((6, 6)) < 0.3
    positive |= positive.T
    one = loss(image, text, logit_scale=20.0, positive=positive)
    np.testing.assert_allclose(one, loss(text, image, logit_scale=20.0, positive=positive), rtol=1e-5)


@pytest.mark.parametrize("loss", [softmax_contrastive, lambda *a, **k: sigmoid_contrastive(*a, logit_bias=-5.0, **k)])
def test_padded_rows_change_nothing(loss):
    random = np.random.default_rng(2)
    image, text = float32(unit_rows(random, 8), unit_rows(random, 8))
    mask = jnp.arange(8) < 5
    padded = loss(image, text, logit_scale=20.0, known=mask[:, None] & mask[None, :])
    np.testing.assert_allclose(padded, loss(image[:5], text[:5], logit_scale=20.0), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("positive", [jnp.zeros((3, 3), bool), jnp.ones((3, 3), bool), jnp.eye(3, dtype=bool)])
@pytest.mark.parametrize("known", [jnp.zeros((3, 3), bool), jnp.ones((3, 3), bool), jnp.eye(3, dtype=bool)])
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_extremes_stay_finite(positive, known, scale):
    image, text = float32(*(unit_rows(np.random.default_rng(3), 3) for _ in range(2)))
    for loss, more in ((softmax_contrastive, {}), (sigmoid_contrastive, {"logit_bias": -10.0})):
        value, gradient = jax.value_and_grad(
            lambda i, loss=loss, more=more: loss(i, text, logit_scale=scale, positive=positive, known=known, **more)
        )(image)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
        if not known.any():
            assert value == 0
            assert (gradient == 0).all()


@pytest.mark.slow
def test_other_positives_are_not_pushed_away():
    """A picture of a dog gains nothing by leaving "animale" when "cane" is right too."""
    image, text = jnp.eye(4)[:1], jnp.eye(4)
    positive = jnp.array([[True, True, False, False]])
    gradient = jax.grad(lambda t: softmax_contrastive(image, t, logit_scale=5.0, positive=positive))(text)
    assert gradient[1, 0] < 0  # moves towards the picture
    assert gradient[2, 0] > 0  # moves away


def test_shapes_that_do_not_fit_are_named():
    image, text = jnp.ones((2, 3)), jnp.ones((4, 3))
    with pytest.raises(ValueError, match="2 images and 4 texts are no pairs"):
        softmax_contrastive(image, text, logit_scale=20.0)
    with pytest.raises(ValueError, match=r"known must be \(images, texts\) = \(2, 4\), not \(4, 2\)"):
        softmax_contrastive(image, text, logit_scale=20.0, positive=jnp.ones((2, 4)), known=jnp.ones((4, 2), bool))


SHARDED = """
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from clipita_train.losses.contrastive import sigmoid_contrastive, softmax_contrastive

assert jax.device_count() == 8
mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
random = np.random.default_rng(0)
rows = random.normal(size=(2, 32, 16)).astype(np.float32)
rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
positive = np.eye(32, dtype=bool) | (random.random((32, 32)) < 0.1)
sharded = jax.device_put((rows[0], rows[1], positive), NamedSharding(mesh, PartitionSpec("data")))
for loss, more in ((softmax_contrastive, {}), (sigmoid_contrastive, {"logit_bias": -10.0})):
    f = jax.jit(jax.value_and_grad(lambda i, t, p: loss(i, t, logit_scale=20.0, positive=p, **more), argnums=(0, 1)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), f(*sharded), f(*rows, positive))
"""


@pytest.mark.slow
def test_sharded_over_eight_devices_is_the_loss_of_the_global_batch():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-W", "error", "-c", SHARDED], env=environment, check=True)

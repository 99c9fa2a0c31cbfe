"""Projections on standardised features, and the same ones on raw features, as bundles have them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clipita_train.concepts.projections import Projections, Standardize, merge, project, projection_loss, unit_rows
from flax import nnx
from support.tiny import CONFIG

from clipita.system.arrays import Array
from clipita.towers.config import ProjectionConfig
from clipita.towers.dual import Projection, unit_norm
from clipita.towers.parameters import parameter_table, set_parameters

pytestmark = pytest.mark.slow

WIDE = replace(
    CONFIG, image_projection=ProjectionConfig(bias=True), text_projection=ProjectionConfig(hidden=16, bias=True)
)
rng = np.random.default_rng(0)
IMAGES = rng.normal(2, 3, (40, CONFIG.image.features)).astype(np.float32)
TEXTS = rng.normal(-1, 0.05, (40, CONFIG.text.features)).astype(np.float32)
SETTINGS = {
    "logit_scale": 20.0,
    "text_noise": 0.0,
    "text_drift": 0.0,
    "image_dropout": 0.0,
    "word_weight": 0.5,
    "caption_weight": 0.25,
}


@pytest.fixture(scope="module")
def model() -> Projections:
    """Random weights everywhere: at the start biases and the second matrix would be zeros."""
    standardise = [Standardize(x.mean(0), float(x.std())) for x in (IMAGES, TEXTS)]
    made = Projections(WIDE, *standardise, rngs=nnx.Rngs(0))
    for module in (made.image_projection, made.text_projection):
        table = {name: rng.normal(0, 0.2, values.shape) for name, values in parameter_table(module).items()}
        set_parameters(module, table)
    return made


def folded(model: Projections) -> tuple[dict[str, Array], dict[str, Array]]:
    return (
        model.image_standardise.fold(parameter_table(model.image_projection)),
        model.text_standardise.fold(parameter_table(model.text_projection)),
    )


@pytest.mark.parametrize("side", ["image", "text"])
def test_folded_weights_do_the_same_to_raw_features(model: Projections, side: str) -> None:
    features = IMAGES if side == "image" else TEXTS
    config = WIDE.image_projection if side == "image" else WIDE.text_projection
    expected = np.asarray(getattr(model, f"project_{side}")(jnp.asarray(features)))
    weights = folded(model)[side == "text"]
    np.testing.assert_allclose(unit_rows(project(weights, features)), expected, atol=1e-4)

    in_a_bundle = Projection(features.shape[1], WIDE.embed_dim, config, rngs=nnx.Rngs(1))
    set_parameters(in_a_bundle, weights)
    np.testing.assert_allclose(unit_norm(in_a_bundle(jnp.asarray(features))), expected, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-5)


def test_folding_leaves_the_trained_weights_alone(model: Projections) -> None:
    before = parameter_table(model.text_projection)
    copies = {name: values.copy() for name, values in before.items()}
    result = model.text_standardise.fold(before)
    assert result.keys() == before.keys()
    assert all(np.array_equal(before[name], copies[name]) for name in before)
    assert np.array_equal(result["mlp_out.kernel"], before["mlp_out.kernel"])
    assert {values.dtype for values in result.values()} == {np.dtype(np.float32)}


def members(count: int) -> list[tuple[dict[str, Array], dict[str, Array]]]:
    """Projections for raw features with random weights."""
    made = []
    for number in range(count):
        draw = np.random.default_rng(number)
        pair = []
        for features, config, mean in ((IMAGES, WIDE.image_projection, 2.0), (TEXTS, WIDE.text_projection, -1.0)):
            table = parameter_table(Projection(features.shape[1], WIDE.embed_dim, config, rngs=nnx.Rngs(0)))
            table = {name: draw.normal(0, 0.2, values.shape).astype(np.float32) for name, values in table.items()}
            pair.append(Standardize(np.full(features.shape[1], mean), 1.0).fold(table))
        made.append((pair[0], pair[1]))
    return made


def products(pair: tuple[dict[str, Array], dict[str, Array]]) -> Array:
    return project(pair[0], IMAGES) @ project(pair[1], TEXTS).T


def test_merged_projections_keep_the_sum_of_products_and_balance_the_spread() -> None:
    pairs = members(2)
    expected = np.zeros((len(IMAGES), len(TEXTS)))
    for image, text in pairs:
        shown, named = project(image, IMAGES), project(text, TEXTS)
        shown = shown - shown.mean(0)
        norms = np.linalg.norm(shown, axis=1).mean() * np.linalg.norm(named, axis=1).mean()
        expected += shown @ named.T / norms
    merged = merge(pairs, IMAGES, TEXTS, width=2 * WIDE.embed_dim)
    np.testing.assert_allclose(products(merged), expected, atol=2e-3 * np.abs(expected).max())

    narrow = merge(pairs, IMAGES, TEXTS, width=3)
    shown, named = project(narrow[0], IMAGES), project(narrow[1], TEXTS)
    np.testing.assert_allclose(shown.mean(0), 0, atol=1e-3)
    moments = [rows.T @ rows / len(rows) for rows in (shown, named)]
    for found in moments:  # nothing but their own spread along each direction
        np.testing.assert_allclose(found - np.diag(np.diag(found)), 0, atol=1e-3 * found.max())
    np.testing.assert_allclose(np.diag(moments[0]), np.diag(moments[1]), rtol=0.02)
    u, s, vt = np.linalg.svd(expected)  # no three numbers come nearer
    nearest = np.square(expected - u[:, :3] * s[:3] @ vt[:3]).sum()
    assert np.square(expected - products(narrow)).sum() == pytest.approx(nearest, rel=0.01)


def test_merging_leaves_its_members_alone() -> None:
    pairs = members(2)
    merge(pairs, IMAGES, TEXTS, width=WIDE.embed_dim)
    for before, after in zip(members(2), pairs, strict=True):
        for one, other in zip(before, after, strict=True):
            assert all(np.array_equal(values, other[name]) for name, values in one.items())


def make_batch() -> dict[str, jax.Array]:
    positive = np.eye(6, 5, dtype=np.float32)
    return {
        "images": jnp.asarray(IMAGES[:6]),
        "text_features": jnp.asarray(TEXTS[:5]),
        "positive": jnp.asarray(positive),
        "known": jnp.ones((6, 5), bool),
    }


WORDS = {"word_left": jnp.asarray(TEXTS[:4]), "word_right": jnp.asarray(TEXTS[4:8])}
CAPTIONS = {"caption_left": jnp.asarray(IMAGES[:3]), "caption_right": jnp.asarray(TEXTS[9:12])}


def test_the_loss_counts_words_and_captions_only_where_a_batch_has_them(model: Projections) -> None:
    loss_fn = projection_loss(**SETTINGS)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        alone, metrics = loss_fn(model, make_batch(), None)
        words, word_metrics = loss_fn(model, make_batch() | WORDS, None)
        both, all_metrics = loss_fn(model, make_batch() | WORDS | CAPTIONS, None)
    assert metrics.keys() == {"concept_loss"}
    assert float(metrics["concept_loss"]) == float(alone)
    assert word_metrics.keys() == {"concept_loss", "word_loss"}
    assert float(words) == pytest.approx(float(alone) + 0.5 * float(all_metrics["word_loss"]), rel=1e-5)
    assert float(both) == pytest.approx(float(words) + 0.25 * float(all_metrics["caption_loss"]), rel=1e-5)
    assert float(all_metrics["concept_loss"]) == float(alone)  # not added to in place


@pytest.mark.parametrize("noise", [{"text_noise": 0.5, "image_dropout": 0.5}, {"text_drift": 0.5}])
def test_noise_drift_and_dropout_only_in_training(model: Projections, noise: dict[str, float]) -> None:
    loss_fn = projection_loss(**{**SETTINGS, **noise})
    batch = make_batch() | WORDS | CAPTIONS
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        plain = float(projection_loss(**SETTINGS)(model, batch, jax.random.key(0))[0])
        noisy = [float(loss_fn(model, batch, jax.random.key(seed))[0]) for seed in (0, 0, 1)]
        judged = float(loss_fn(model, batch, None)[0])
    assert noisy[0] == noisy[1] != noisy[2]
    assert judged == pytest.approx(plain, rel=1e-6)
    assert abs(noisy[0] - plain) > 1e-3


def test_texts_drift_by_what_words_of_one_meaning_differ_by(model: Projections) -> None:
    loss_fn = projection_loss(**{**SETTINGS, "text_drift": 0.5, "word_weight": 0.0})
    alike = {"word_left": WORDS["word_left"], "word_right": WORDS["word_left"]}
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        still, _ = loss_fn(model, make_batch(), None)
        for words in ({}, alike):  # no words, and words that do not differ
            drifted, _ = loss_fn(model, make_batch() | words, jax.random.key(0))
            assert float(drifted) == pytest.approx(float(still), rel=1e-5)
        drifted, _ = loss_fn(model, make_batch() | WORDS, jax.random.key(0))
    assert abs(float(drifted) - float(still)) > 1e-4


def test_dropout_keeps_the_mean(model: Projections) -> None:
    features = jnp.ones((400, CONFIG.image.features))
    standardised = model.image_standardise(features)
    seen: list[jax.Array] = []
    projection, model.image_projection = model.image_projection, lambda x: (seen.append(x), projection(x))[1]
    try:
        model.project_image(features, jax.random.key(0), 0.25)
    finally:
        model.image_projection = projection
    np.testing.assert_allclose(seen[0].mean(0), standardised[0], atol=0.25)
    assert float((seen[0] == 0).mean()) == pytest.approx(0.25, abs=0.02)

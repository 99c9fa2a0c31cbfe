"""Dropout in the text towers: its places against transformers' towers in training, what it leaves, and when."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support import oracles
from support.reference import torch
from support.tiny import CONFIG, tiny_table

from clipita.convert.layouts.checkpoint import read_dual
from clipita.system.arrays import Array
from clipita.towers import bert, clip_text, transformer
from clipita.towers.config import ClipTextConfig, DualConfig
from clipita.towers.dual import DualEncoder
from clipita.towers.parameters import set_parameters
from clipita.towers.transformer import dropped

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("strict_types")]

RATE = 0.1
CAUSAL = ClipTextConfig(64, 96, 2, 3, 128, 40, "quick_gelu", 1e-5, "causal", "highest")
rng = np.random.default_rng(0)
IDS = rng.integers(0, CONFIG.text.vocabulary, (3, 7)).astype(np.int32)
MASK = (np.arange(7) < np.array([7, 4, 1])[:, None]).astype(np.int32)


def dual(config: DualConfig, weights: dict[str, Array] | None = None, *, rate: float = RATE) -> DualEncoder:
    model = nnx.eval_shape(lambda: DualEncoder(config, rngs=nnx.Rngs(0)))
    set_parameters(model, tiny_table(config) if weights is None else weights)
    model.text.set_attributes(nnx.Dropout, rate=rate)
    return model


def keys_of(count: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


@pytest.mark.parametrize(
    "layout",
    ["VisionTextDualEncoder, BERT x CLIP", "OpenCLIP, XLM-R base, mean, mlp", "OpenCLIP, NLLB-SigLIP"],
)
def test_drops_where_the_reference_drops(layout, tmp_path, monkeypatch):
    """The masks of a forward pass of ours, in their order, put in the places of those of the reference in training."""
    captured = []
    randomised = oracles._randomised
    monkeypatch.setattr(oracles, "_randomised", lambda model: captured.append(model) or randomised(model))
    oracle = oracles.ORACLES[layout](tmp_path)
    theirs = captured[0].train()
    for part in theirs.modules():
        if hasattr(part, "layerdrop"):
            part.layerdrop = 0.0  # of M2M100, which sometimes leaves out a whole layer
        if hasattr(part, "config"):
            part.config._attn_implementation = "eager"

    read = read_dual(oracle.folder)
    ours = dual(read.config, read.weights)
    ids, mask = oracles.texts(oracle, 5)
    masks = []

    def recorded(dropout: nnx.Dropout, x: jax.Array, keys: jax.Array | None) -> jax.Array:
        masks.append(np.array(dropped(dropout, jnp.ones_like(x), keys)))
        return dropped(dropout, x, keys)

    for module in (transformer, bert, clip_text):
        monkeypatch.setattr(module, "dropped", recorded)
    features = ours.text_features(ids.astype(np.int32), mask.astype(np.int32), keys_of(len(ids)))
    assert len(masks) == 1 + 3 * 2  # after the embeddings, and three in each layer
    assert {round(float(share), 4) for mask in masks for share in np.unique(mask)} == {0.0, round(1 / (1 - RATE), 4)}

    def given(x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        if p == 0:
            return x  # of M2M100, within its MLP
        assert (p, training) == (RATE, True)
        mask = torch.from_numpy(masks.pop(0))
        whole = torch.ones(x.shape)  # ours computes the last layer for the pooled token alone
        whole[..., : mask.shape[-2], :] = mask
        return x * whole

    monkeypatch.setattr(torch.nn.functional, "dropout", given)
    expected = oracle.text(ids, mask)
    assert not masks
    np.testing.assert_allclose(ours.project_text(features), expected, atol=1e-5)
    assert np.abs(np.asarray(ours.project_text(ours.text_features(ids, mask))) - expected).max() > 0.01


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_expectation_and_variance_are_those_of_the_formula(rate):
    """Of x / (1 - rate) with probability 1 - rate, else 0: x, and x² rate / (1 - rate)."""
    rows, x = 40_000, np.array([[-2.0, 0.5, 3.0], [1.0, 0.0, -0.25]], np.float32)
    left = np.asarray(dropped(nnx.Dropout(rate), jnp.tile(jnp.asarray(x), (rows, 1, 1)), keys_of(rows)))
    variance = x**2 * rate / (1 - rate)
    assert (np.abs(left.mean(0) - x) <= 5 * np.sqrt(variance / rows)).all()
    np.testing.assert_allclose(left.var(0), variance, rtol=0.06)
    np.testing.assert_allclose(left[left != 0], np.broadcast_to(x / (1 - rate), left.shape)[left != 0], rtol=1e-6)
    kept = left.reshape(rows, -1)[:, x.ravel() != 0] != 0
    assert np.abs(np.corrcoef(kept.T) - np.eye(5)).max() < 0.03  # each by itself


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, text=CAUSAL)], ids=["bert", "clip"])
def test_without_keys_or_in_evaluation_nothing_is_dropped(config):
    plain = dual(config, rate=0.0)
    expected = plain.text_features(IDS, MASK)
    model = dual(config)
    np.testing.assert_array_equal(model.text_features(IDS, MASK), expected)
    assert "random" not in str(jax.make_jaxpr(model.text_features)(IDS, MASK))
    keys = keys_of(3)
    assert "random" in str(jax.make_jaxpr(model.text_features)(IDS, MASK, keys))
    assert np.abs(model.text_features(IDS, MASK, keys) - expected).max() > 0.01
    for silent in (plain, model):
        silent.eval()
        np.testing.assert_allclose(silent.text_features(IDS, MASK, keys), expected, atol=1e-5)
    model.train()
    assert np.abs(model.text_features(IDS, MASK, keys) - expected).max() > 0.01


def test_a_row_is_dropped_by_its_own_key():
    model, keys = dual(CONFIG), keys_of(3)
    together = np.asarray(model.text_features(IDS, MASK, keys))
    order = np.array([2, 0, 1])
    np.testing.assert_allclose(model.text_features(IDS[order], MASK[order], keys[order]), together[order], atol=1e-6)
    np.testing.assert_allclose(model.text_features(IDS[1:2], MASK[1:2], keys[1:2])[0], together[1], atol=1e-5)
    twice = model.text_features(IDS[[0, 0]], MASK[[0, 0]], keys[:2])
    assert np.abs(twice[0] - twice[1]).max() > 0.01


def test_no_weight_and_no_state_comes_with_it():
    model = nnx.eval_shape(lambda: DualEncoder(CONFIG, rngs=nnx.Rngs(0)))
    kinds = {type(variable) for _, variable in nnx.to_flat_state(nnx.state(model))}
    assert kinds == {nnx.Param, nnx.BatchStat}

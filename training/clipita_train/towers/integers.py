"""Have a bundle's convolutions computed in integers, with ranges of activations that photographs show."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clipita.backends.calibration import convolution_activations
from clipita.backends.onnx import OnnxBackend
from clipita.bundles.bundle import Bundle
from clipita.convert.fidelity import cosines
from clipita.convert.rewrite import rewrite
from clipita.errors import ImageError
from clipita.images.pixels import Preprocessing, load_pixels
from clipita.system.arrays import Pixels
from clipita.towers.opened import OpenedModel

LEAST_COSINE = 0.995  # a mean cosine to float32 below which something is wrong: of clipita-mini it is 0.999
PHOTOGRAPHS = 128


class InIntegers(NamedTuple):
    """A bundle that was written, and the mean and the smallest cosine of its images to those of float32."""

    bundle: Bundle
    cosine: float
    smallest: float


def in_integers(bundle: Bundle, photographs: Sequence[Path], folder: Path) -> InIntegers:
    """Write a bundle again whose image tower, an EfficientNet, multiplies in integers.

    Half of the photographs give the ranges, the other half judge.

    Args:
        bundle: A bundle of one precision; its weights may be stored in any way.
        photographs: Files, of which `PHOTOGRAPHS` are taken evenly; those that cannot be read are left out.
        folder: Made if missing; it must not be that of the bundle.

    Raises:
        ValueError: Fewer than 32 of the photographs can be read, or their embeddings change too much.
        CheckpointError: The bundle has towers that are not known here.
    """
    opened = OpenedModel.of(bundle)
    pixels = _pixels(photographs, opened.preprocessing)
    with tempfile.TemporaryDirectory() as scratch:
        exact = rewrite(opened, Path(scratch), precision="fp32")
        activations = convolution_activations(exact, pixels[::2])
        made = rewrite(opened, folder, precision="int8", activations=activations)
        judged = [
            [backend.encode_pixels(pixels[1::2])]
            for backend in (OnnxBackend(exact, precision="fp32"), OnnxBackend(made, precision="int8"))
        ]
    mean, smallest = cosines("image", *judged).values()
    if mean < LEAST_COSINE:
        raise ValueError(
            f"in integers the photographs have a mean cosine of {mean:.4f} to float32, and {LEAST_COSINE} is the least "
            "that is of use. Give photographs that are more like those that the model is for."
        )
    return InIntegers(made, mean, smallest)


def _pixels(photographs: Sequence[Path], preprocessing: Preprocessing) -> Pixels:
    found: list[Pixels] = []
    for index in np.unique(np.linspace(0, len(photographs) - 1, min(PHOTOGRAPHS, len(photographs))).astype(int)):
        try:
            found.append(load_pixels(photographs[index], preprocessing, name=str(photographs[index])))
        except ImageError:
            continue
    if len(found) < 32:
        raise ValueError(
            f"{len(found)} of the {len(photographs)} photographs can be read, and ranges of activations need 32 or more"
        )
    return np.stack(found)

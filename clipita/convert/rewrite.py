"""A bundle of float32 weights in another form: in 8 bits, or for other runtimes. It is whole, and needs no other."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file  # pyright: ignore[reportUnknownVariableType]

from clipita.bundle import TOKENIZER, WEIGHTS, Bundle, write_bundle
from clipita.convert.export import Provenance, write_dual_bundle
from clipita.convert.quantize import INTEGER, dequantize
from clipita.convert.samples import TEXTS, pictures
from clipita.errors import CheckpointError
from clipita.images import Preprocessing
from clipita.tokenizer import Tokenizer, TokenizerConfig
from clipita.towers.config import DualConfig

FloatArray = npt.NDArray[np.float32]


class Encoder(Protocol):
    """What a bundle runs on; `pixels` (B, S, S, 3) and tokens (B, L) to (B, E) of unit norm."""

    def encode_pixels(self, pixels: npt.NDArray[np.uint8]) -> FloatArray: ...

    def encode_tokens(self, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]) -> FloatArray: ...


def rewrite(bundle: Bundle, folder: Path, *, precision: str, portable: bool = False) -> Bundle:
    """Write a float32 bundle in another form.

    Args:
        bundle: What to begin with.
        folder: The folder to write to.
        precision: "fp32", or "int8": matrices are then int8 and multiplied in integers
            (`clipita.convert.quantize.INTEGER` says which, and why); activations are brought to 8 bits by the range of
            each batch, so that an embedding depends a little (some 1e-3) on what it is computed beside.
        portable: Write graphs of standard ONNX operators only, for other runtimes.

    Raises:
        CheckpointError: its towers are not among those that are known here.
    """
    config = bundle.config
    if config.image.get("kind") == "onnx":
        if precision == "fp32" and not portable:
            return write_bundle(folder, config=config, files={name: bundle.path(name) for name in bundle.files})
        raise CheckpointError(
            f"{config.name!r} is an ONNX export, which is run as it is. Load the variant that its author made, or the "
            "checkpoint that it was made from."
        )
    return write_dual_bundle(
        folder,
        dequantize(load_file(bundle.path(WEIGHTS))),
        DualConfig.from_bundle(config),
        provenance=Provenance(config.name, config.license, config.source, config.revision),
        weight_formats=INTEGER if precision == "int8" else {},
        precision=precision,
        tokenizer=TokenizerConfig.from_dict(config.text["tokenizer"]),
        tokenizer_file=bundle.path(TOKENIZER),
        logit_scale=config.logit_scale,
        logit_bias=config.logit_bias,
        templates=config.templates,
        portable=portable,
    )


def with_fidelity(bundle: Bundle, measured: dict[str, float]) -> Bundle:
    """The bundle with these numbers in its `clipita.json`."""
    config = dataclasses.replace(bundle.config, fidelity=measured)
    return write_bundle(bundle.folder, config=config, files={name: bundle.path(name) for name in bundle.files})


def fidelity(bundle: Bundle, reference: Encoder, other: Encoder) -> dict[str, float]:
    """Mean and smallest cosine between two encoders, on `clipita.convert.samples`, one input at a time."""
    preprocessing = Preprocessing.from_dict(bundle.config.image["preprocessing"])
    tokenizer_config = TokenizerConfig.from_dict(bundle.config.text["tokenizer"])
    batches = Tokenizer.from_file(bundle.path(TOKENIZER), tokenizer_config).encode(
        TEXTS, batch_size=1, on_truncate="ignore"
    )

    def images(encoder: Encoder) -> list[FloatArray]:
        return [encoder.encode_pixels(picture[None]) for picture in pictures(preprocessing.image_size)]

    def texts(encoder: Encoder) -> list[FloatArray]:
        return [encoder.encode_tokens(batch.input_ids, batch.attention_mask) for batch in batches]

    return cosines("image", images(reference), images(other)) | cosines("text", texts(reference), texts(other))


def cosines(tower: str, first: Sequence[FloatArray], second: Sequence[FloatArray]) -> dict[str, float]:
    """Mean and smallest cosine of rows of unit norm, called after the tower."""
    found = (np.concatenate(first) * np.concatenate(second)).sum(axis=-1)
    return {f"{tower}_cosine": round(float(found.mean()), 6), f"{tower}_cosine_min": round(float(found.min()), 6)}

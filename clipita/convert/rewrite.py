"""Write a bundle of float32 weights in another form: in 8 bits, or for other runtimes."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from safetensors.numpy import load_file  # pyright: ignore[reportUnknownVariableType]

from clipita.bundles.bundle import TOKENIZER, WEIGHTS, Bundle, write_bundle
from clipita.convert.export import Provenance, Storage, write_dual_bundle
from clipita.convert.weights.integer_convolutions import Activations
from clipita.convert.weights.quantize import INTEGER, SMALL, dequantize
from clipita.convert.weights.smoothing import smoothing
from clipita.errors import CheckpointError
from clipita.system.arrays import FloatArray
from clipita.towers.opened import OpenedModel


def rewrite(
    model: OpenedModel,
    folder: Path,
    *,
    precision: str,
    portable: bool = False,
    largest: Mapping[str, FloatArray] = MappingProxyType({}),
    activations: Activations | None = None,
) -> Bundle:
    """Write a bundle in another form, which does not need the first one any more.

    Args:
        model: The bundle, of float32 weights or, to have them in float32 or as `activations` says, of any others.
        folder: The folder to write to.
        precision: "fp32", or "int8": matrices are then int8 and multiplied in integers
            (`clipita.convert.weights.quantize.INTEGER` says which, and why); activations are brought to 8 bits by the
            range of each batch, so that an embedding depends a little (some 1e-3) on the others of its batch.
        portable: Write graphs of standard ONNX operators only, for other runtimes.
        largest: For int8, the largest magnitudes of what each kernel is multiplied by, as
            `clipita.backends.calibration.largest_inputs` finds them.
        activations: For int8 of a bundle like clipita-mini, as `clipita.backends.calibration.convolution_activations`
            finds them: weights become those of `clipita.convert.weights.quantize.SMALL`, and the convolutions are
            computed in integers. `largest` is not needed then.

    Raises:
        CheckpointError: The towers are of kinds that are not known here.
    """
    bundle, config = model.bundle, model.bundle.config
    if config.image.get("kind") == "onnx":
        if precision == "fp32" and not portable:
            return write_bundle(folder, config=config, files={name: bundle.path(name) for name in bundle.files})
        raise CheckpointError(
            f"{config.name!r} is an ONNX export, which is run as it is. Load the variant that its author made, or the "
            "checkpoint that it was made from."
        )
    table = dequantize(load_file(bundle.path(WEIGHTS)))
    if precision == "int8":
        formats = SMALL if activations is not None else INTEGER
        storage = Storage("int8", formats, smoothing(table, largest), activations, portable)
    else:
        storage = Storage(precision, portable=portable)
    return write_dual_bundle(
        folder,
        table,
        model.towers,
        provenance=Provenance(config.name, config.license, config.source, config.revision),
        storage=storage,
        tokenizer=model.tokenizer,
        tokenizer_file=bundle.path(TOKENIZER),
        logit_scale=config.logit_scale,
        logit_bias=config.logit_bias,
        templates=config.templates,
    )


def with_fidelity(bundle: Bundle, measured: dict[str, float]) -> Bundle:
    """Write the measured fidelity into the `clipita.json` of a bundle."""
    config = dataclasses.replace(bundle.config, fidelity=measured)
    return write_bundle(bundle.folder, config=config, files={name: bundle.path(name) for name in bundle.files})

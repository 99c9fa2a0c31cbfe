"""Convert the folder of a model in another layout to a bundle."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from clipita.bundles.bundle import Bundle
from clipita.convert.export import Provenance, Storage, write_dual_bundle
from clipita.convert.folder.model_card import license_of
from clipita.convert.folder.origin import Origin, is_export
from clipita.convert.layouts.checkpoint import detect_layout, read_checkpoint
from clipita.convert.onnx_exports import write_export_bundle


def convert(
    folder: Path,
    out: Path,
    origin: Origin,
    *,
    precision: str | None = None,
    portable: bool = False,
    on_step: Callable[[str], object] = str,
) -> Bundle:
    """Write the bundle of a folder that is in one of the known layouts.

    Args:
        folder: A folder that `clipita.loading.hub.resolve` returned and that is no bundle.
        out: The folder to write to.
        origin: The source of `folder`.
        precision: Which of several ONNX exports to take; it has no effect on checkpoints, which become float32.
        portable: Write graphs of standard ONNX operators only, for other runtimes.
        on_step: Called with the name of each step as it begins.

    Raises:
        CheckpointError: The folder is in no known layout, or is damaged; the message names the cause.
    """
    license = license_of(folder) or origin.license or "unknown"
    provenance = Provenance(origin.name, license, origin.source, origin.revision)
    on_step("reading")
    if is_export(folder):
        return write_export_bundle(folder, out, provenance, precision or "fp32")
    checkpoint = read_checkpoint(folder, images=origin.images)
    on_step("writing")
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer_file = Path(scratch) / "tokenizer.json"
        tokenizer_file.write_text(checkpoint.tokenizer_json, encoding="utf-8")
        return write_dual_bundle(
            out,
            checkpoint.weights,
            checkpoint.config,
            provenance=provenance,
            tokenizer=checkpoint.tokenizer,
            tokenizer_file=tokenizer_file,
            logit_scale=checkpoint.logit_scale,
            logit_bias=checkpoint.logit_bias,
            templates=checkpoint.templates,
            storage=Storage(portable=portable),
        )


def layout_of(folder: Path) -> str | None:
    """Return the name of a folder's layout, or None if it is not known."""
    return "onnx-exports" if is_export(folder) else detect_layout(folder)

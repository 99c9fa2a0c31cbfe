"""The folder of a model in another layout -> a bundle."""

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clipita.bundle import Bundle
from clipita.convert.checkpoint import detect_layout, read_checkpoint
from clipita.convert.export import Provenance, write_dual_bundle
from clipita.convert.layouts.sentence_transformers import IMAGES
from clipita.convert.model_card import license_of
from clipita.convert.onnx_exports import is_export, write_export_bundle

# What is read of a folder, by the ends of its files' names: they are what its bundle depends on.
_READ = (".json", ".txt", ".model", ".md", ".safetensors", ".bin", ".msgpack", ".onnx", ".onnx_data")
_WEIGHTS = _READ[-5:]


@dataclass(frozen=True)
class Origin:
    """Where a folder comes from.

    Attributes:
        name: What its model is called.
        source: "Hugging Face hub" or "a folder".
        revision: The commit on the hub, or "".
        license: To fall back on where its model card states none.
        images: The folder with the image tower, where this one has a text tower alone.
    """

    name: str
    source: str
    revision: str
    license: str | None = None
    images: Path | None = None


def identity(folder: Path, origin: Origin, precision: str | None) -> tuple[str, int]:
    """16 hex digits that change whenever the bundle of a folder would, and the bytes that it will take, about.

    Of the hub's, a commit says what it holds. Elsewhere names, sizes and times of files do, so that nothing is read.
    """
    content: list[object] = [origin.name, origin.revision, _variant(folder, precision)]
    places = (folder, origin.images or folder / IMAGES)  # the second may be a link, which a search does not follow
    files = {path.resolve() for place in places for path in place.rglob("*") if path.suffix in _READ and path.is_file()}
    needed = 0
    for path in sorted(files):
        status = path.stat()
        needed += status.st_size if path.suffix in _WEIGHTS else 0
        if not origin.revision:
            content.append([str(path), status.st_size, status.st_mtime_ns])
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16], needed


def convert(
    folder: Path,
    out: Path,
    origin: Origin,
    *,
    precision: str | None = None,
    portable: bool = False,
    on_step: Callable[[str], object] = str,
) -> Bundle:
    """Write the bundle of a folder in any of the layouts that are known.

    Args:
        folder: What `clipita.hub.resolve` gives, if it is no bundle.
        out: The folder to write to.
        origin: What is known of it.
        precision: Which of several ONNX exports is taken; checkpoints become float32 whatever it is.
        portable: Write graphs of standard ONNX operators only, for other runtimes.
        on_step: Called with what is done next.

    Raises:
        CheckpointError: it is in no such layout, or damaged; the message names what is wrong.
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
            weight_formats={},
            precision="fp32",
            tokenizer=checkpoint.tokenizer,
            tokenizer_file=tokenizer_file,
            logit_scale=checkpoint.logit_scale,
            logit_bias=checkpoint.logit_bias,
            templates=checkpoint.templates,
            portable=portable,
        )


def layout_of(folder: Path) -> str | None:
    """What layout a folder is in; None if in none that is known."""
    return "onnx-exports" if is_export(folder) else detect_layout(folder)


def _variant(folder: Path, precision: str | None) -> str:
    return (precision or "fp32") if is_export(folder) else "fp32"

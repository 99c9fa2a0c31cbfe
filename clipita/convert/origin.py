"""Where a folder comes from, and what its bundle depends on: all that a bundle made earlier is found by.

Loading such a bundle imports this and nothing else of the conversion, neither ONNX nor the readers of weights.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from clipita.convert.files import has_weights

IMAGES = "clip-ViT-B-32"  # what sentence-transformers' image half is called on the hub, and inside the text half

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


def is_export(folder: Path) -> bool:
    """Whether a folder holds ONNX exports and no weights in another form."""
    in_another_form = has_weights(folder) or has_weights(folder, open_clip=True)
    return not in_another_form and any((folder / "onnx").glob("vision_model*.onnx"))


def _variant(folder: Path, precision: str | None) -> str:
    return (precision or "fp32") if is_export(folder) else "fp32"

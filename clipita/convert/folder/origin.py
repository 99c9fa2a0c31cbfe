"""Where a folder comes from, and what its bundle depends on: all that a bundle made earlier is found by.

Loading such a bundle imports this and nothing else of the conversion, neither ONNX nor the readers of weights.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from clipita.convert.folder.files import has_weights
from clipita.convert.folder.names import CONFIG, MODULES, OPEN_CLIP_CONFIG
from clipita.errors import CheckpointError

IMAGES = "clip-ViT-B-32"  # what sentence-transformers' image half is called on the hub, and inside the text half

# What is read of a folder, by the ends of its files' names: they are what its bundle depends on.
_READ = (".json", ".txt", ".model", ".md", ".safetensors", ".bin", ".msgpack", ".onnx", ".onnx_data")
_WEIGHTS = _READ[-5:]
# Copies of a model's training have thousands of files at their sides, and parts lie a folder or two below.
_MAX_FILES = 20_000
_MAX_DEPTH = 8


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
    files = {path.resolve() for place in places for path in _files(place)}
    needed = 0
    for path in sorted(files):
        try:
            status = path.stat()
        except OSError:  # gone meanwhile: whoever needs it will say so
            continue
        needed += status.st_size if path.suffix in _WEIGHTS else 0
        if not origin.revision:
            content.append([str(path), status.st_size, status.st_mtime_ns])
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16], needed


def has_layout(folder: Path) -> bool:
    """Whether a folder holds one of the files that every layout begins with."""
    return any((folder / name).exists() for name in (MODULES, CONFIG, OPEN_CLIP_CONFIG))


def _files(folder: Path) -> list[Path]:
    """Files that may belong to a checkpoint, in a folder and those in it.

    Raises:
        CheckpointError: the folder holds so many files that it is no checkpoint's.
    """
    found: list[Path] = []
    count = 0
    folders = [(folder, 0)]
    while folders:
        place, depth = folders.pop()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    count += 1
                    if count > _MAX_FILES:
                        raise CheckpointError(
                            f"{str(folder)!r} holds more than {_MAX_FILES:,} files, and a checkpoint has a few dozen. "
                            "Give the folder of the model alone, or copy its files into one."
                        )
                    path = place / entry.name
                    if entry.is_dir(follow_symlinks=False) and depth < _MAX_DEPTH and not entry.name.startswith("."):
                        folders.append((path, depth + 1))
                    elif path.suffix in _READ and path.is_file():
                        found.append(path)
        except OSError:  # gone meanwhile, or not to be read: whoever needs it will say so
            continue
    return found


def is_export(folder: Path) -> bool:
    """Whether a folder holds ONNX exports and no weights in another form."""
    in_another_form = has_weights(folder) or has_weights(folder, open_clip=True)
    return not in_another_form and any((folder / "onnx").glob("vision_model*.onnx"))


def _variant(folder: Path, precision: str | None) -> str:
    return (precision or "fp32") if is_export(folder) else "fp32"

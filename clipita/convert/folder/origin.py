"""Identify a checkpoint's folder, so that the bundle that was made from it earlier can be found.

Loading such a bundle imports this file and nothing else of the conversion, neither ONNX nor the readers of weights.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from clipita.convert.folder.files import has_weights
from clipita.convert.folder.names import CONFIG, MODULES, OPEN_CLIP_CONFIG
from clipita.errors import CheckpointError

IMAGES = "clip-ViT-B-32"  # sentence-transformers' image half, on the hub and as a folder inside the text half

# The endings of the files that a conversion reads, and that its bundle therefore depends on.
_READ = (".json", ".txt", ".model", ".md", ".safetensors", ".bin", ".msgpack", ".onnx", ".onnx_data")
_WEIGHTS = _READ[-5:]
# A copy of a training's folder may hold thousands of files beside the model. Parts of a model lie up to two folders
# below it.
_MAX_FILES = 20_000
_MAX_DEPTH = 8


@dataclass(frozen=True)
class Origin:
    """The source of a checkpoint's folder.

    Attributes:
        name: The name of its model.
        source: "Hugging Face hub" or "a folder".
        revision: The commit on the hub, or "".
        license: The license to state if its model card has none.
        images: The folder with the image tower, if this one has only a text tower.
    """

    name: str
    source: str
    revision: str
    license: str | None = None
    images: Path | None = None


def identity(folder: Path, origin: Origin, precision: str | None) -> tuple[str, int]:
    """Identify a folder by what its bundle depends on, and estimate the size of the bundle.

    Nothing of the files is read: on the hub a commit stands for its contents, and elsewhere names, sizes and times of
    files do.

    Returns:
        16 hex digits that change whenever the bundle would, and its size in bytes, roughly.
    """
    content: list[object] = [origin.name, origin.revision, _variant(folder, precision)]
    places = (folder, origin.images or folder / IMAGES)  # the second may be a link, which a search does not follow
    files = {path.resolve() for place in places for path in _files(place)}
    needed = 0
    for path in sorted(files):
        try:
            status = path.stat()
        except OSError:  # gone meanwhile: its reader will report it
            continue
        needed += status.st_size if path.suffix in _WEIGHTS else 0
        if not origin.revision:
            content.append([str(path), status.st_size, status.st_mtime_ns])
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16], needed


def has_layout(folder: Path) -> bool:
    """Tell whether a folder holds one of the files by which layouts are recognized."""
    return any((folder / name).exists() for name in (MODULES, CONFIG, OPEN_CLIP_CONFIG))


def _files(folder: Path) -> list[Path]:
    """List the files that may belong to a checkpoint, in a folder and the folders below it.

    Raises:
        CheckpointError: The folder holds more files than a checkpoint does.
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
        except OSError:  # gone meanwhile, or not readable: the reader of a file that is needed will report it
            continue
    return found


def is_export(folder: Path) -> bool:
    """Tell whether a folder holds ONNX exports and no weights in another form."""
    in_another_form = has_weights(folder) or has_weights(folder, open_clip=True)
    return not in_another_form and any((folder / "onnx").glob("vision_model*.onnx"))


def _variant(folder: Path, precision: str | None) -> str:
    return (precision or "fp32") if is_export(folder) else "fp32"

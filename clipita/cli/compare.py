"""Compare two forms of a model on pictures for which the user knows the right labels or captions."""

import dataclasses
import json
from pathlib import Path
from typing import Any, cast

import numpy as np

from clipita.errors import CheckpointError, ClipitaError
from clipita.images.photo_files import find_photos, is_users_folder
from clipita.model import Model
from clipita.system.arrays import FloatArray

CAPTIONS = "captions.jsonl"


@dataclasses.dataclass(frozen=True)
class Pictures:
    """A set of pictures with their right labels or captions.

    Attributes:
        folder: The folder of the pictures.
        keys: Their paths below it.
        texts: The captions, or the distinct labels.
        owners: For each caption the index of its picture; or, with labels, for each picture the index of its label.
        are_captions: Whether `texts` are captions.
        left_aside: A sentence about other files in the folder, or "".
    """

    folder: Path
    keys: list[str]
    texts: list[str]
    owners: list[int]
    are_captions: bool
    left_aside: str = ""


def read_pictures(folder: Path) -> Pictures:
    """Read a set of pictures with their labels or captions.

    Args:
        folder: Holds a `captions.jsonl`, whose lines are {"image_path": ..., "captions": [...]}, or a folder for each
            label with its pictures.

    Raises:
        ClipitaError: The set holds no pictures, or a folder or a line of it cannot be read.
    """
    return _captioned(folder) if (folder / CAPTIONS).is_file() else _labeled(folder)


def compare(reference: Model, other: Model, pictures: Pictures) -> dict[str, float]:
    """Measure how near the embeddings of two models are on a set of pictures, and how often each model is right.

    Args:
        reference: One form of a model.
        other: Another form of it.
        pictures: With captions, "recall" is the share of captions whose own picture comes first. With labels,
            "accuracy" is the share of pictures whose label comes first.

    Returns:
        Figures by name: "images", their number; "image_cosine" and "text_cosine", means, with the smallest as
        "..._min"; "accuracy" or "recall" of the reference, and of the other as "other_..."; and "same", the share of
        answers that are the same.

    Raises:
        ImageError: A picture cannot be read.
    """
    paths = [pictures.folder / key for key in pictures.keys]
    images = [model.encode_image(paths) for model in (reference, other)]
    if pictures.are_captions:
        sentences = [model.encode_text(pictures.texts, on_truncate="ignore") for model in (reference, other)]
        answers = [(b @ a.T).argmax(1) for a, b in zip(images, sentences, strict=True)]
        score = "recall"
    else:
        sentences = [model.label_bank(pictures.texts).embeddings for model in (reference, other)]
        answers = [(a @ b.T).argmax(1) for a, b in zip(images, sentences, strict=True)]
        score = "accuracy"
    right = [float((found == np.array(pictures.owners)).mean()) for found in answers]
    return {
        "images": len(paths),
        **_cosines("image", *images),
        **_cosines("text", *sentences),
        score: right[0],
        f"other_{score}": right[1],
        "same": float((answers[0] == answers[1]).mean()),
    }


def loss(found: dict[str, float]) -> tuple[str, float]:
    """Return the name and the size of the largest loss among the figures of `compare` or of a bundle's fidelity."""
    losses = {name: 1 - value for name, value in found.items() if name in ("image_cosine", "text_cosine")}
    losses |= {name: found[name] - found[f"other_{name}"] for name in ("accuracy", "recall") if name in found}
    return max(losses.items(), key=lambda item: item[1])


def _labeled(folder: Path) -> Pictures:
    found = find_photos(folder)
    if found.failed:
        place, reason = next(iter(found.failed.items()))
        raise ClipitaError(f"{str(folder / place)!r} {reason}")
    keys = [key for key in found.keys if "/" in key]  # pictures outside these folders have no label
    if not keys:
        raise ClipitaError(
            f"{str(folder)!r} is no set to check on: it has neither {CAPTIONS} nor a folder of pictures for each "
            f"label. {found.describe()}".rstrip()
        )
    labels = sorted(path.name for path in folder.iterdir() if path.is_dir() and is_users_folder(path))
    owners = [labels.index(key.partition("/")[0]) for key in keys]
    return Pictures(folder, keys, labels, owners, are_captions=False, left_aside=found.describe())


def _captioned(folder: Path) -> Pictures:
    path = folder / CAPTIONS
    keys: list[str] = []
    texts: list[str] = []
    owners: list[int] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = cast("dict[str, Any]", json.loads(line))
            image, captions = entry["image_path"], [str(caption) for caption in entry["captions"]]
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"line {number} of {str(path)!r} must be an object with 'image_path' and 'captions': {error!r}."
            ) from error
        owners += [len(keys)] * len(captions)
        keys.append(str(image))
        texts += captions
    if not texts:
        raise ClipitaError(f"{str(path)!r} holds no captions.")
    return Pictures(folder, keys, texts, owners, are_captions=True)


def _cosines(tower: str, first: FloatArray, second: FloatArray) -> dict[str, float]:
    from clipita.convert.fidelity import cosines

    return cosines(tower, [first], [second])

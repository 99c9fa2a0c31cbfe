"""Measure what another form of a model costs, on pictures that the user knows the answers for."""

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
    """Pictures with what is right for them.

    Attributes:
        folder: Where they are.
        keys: Their paths below it.
        texts: Captions, or labels.
        owners: With captions, for each of them the index of its picture; with labels, for each picture that of its
            label.
        are_captions: Which of the two.
        left_aside: What else the folder holds, in a sentence, or "".
    """

    folder: Path
    keys: list[str]
    texts: list[str]
    owners: list[int]
    are_captions: bool
    left_aside: str = ""


def read_pictures(folder: Path) -> Pictures:
    """Read a set to judge on.

    Args:
        folder: With a `captions.jsonl`, whose lines are {"image_path": ..., "captions": [...]}, or with a folder for
            each label that holds its pictures.

    Raises:
        ClipitaError: the set holds no pictures, or a folder or a line of it cannot be read.
    """
    return _captioned(folder) if (folder / CAPTIONS).is_file() else _labelled(folder)


def compare(reference: Model, other: Model, pictures: Pictures) -> dict[str, float]:
    """Return the cosines between the embeddings of two models on a set of pictures, and the scores of both.

    Args:
        reference, other: Two forms of one model.
        pictures: With captions, "recall" is the share of captions whose own picture comes first. With labels,
            "accuracy" is the share of pictures whose label comes first.

    Returns:
        "images", "image_cosine", "text_cosine" (with the smallest as "..._min"), "accuracy" or "recall" of the
        reference, that of the other as "other_...", and "same": how often both give the same answer.

    Raises:
        ImageError: a picture cannot be used.
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
    """The largest of the losses in what `compare` or a bundle's fidelity says, and what it is a loss of."""
    losses = {name: 1 - value for name, value in found.items() if name in ("image_cosine", "text_cosine")}
    losses |= {name: found[name] - found[f"other_{name}"] for name in ("accuracy", "recall") if name in found}
    return max(losses.items(), key=lambda item: item[1])


def _labelled(folder: Path) -> Pictures:
    found = find_photos(folder)
    if found.failed:
        place, reason = next(iter(found.failed.items()))
        raise ClipitaError(f"{str(folder / place)!r} {reason}")
    keys = [key for key in found.keys if "/" in key]  # others are of no label
    if not keys:
        raise ClipitaError(
            f"{str(folder)!r} is no set to check on: it has neither {CAPTIONS} nor folders that are called as their "
            f"pictures are labelled. {found.describe()}".rstrip()
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

"""What another form of a model costs, on pictures that the user knows the answers for."""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from clipita._embed import list_images
from clipita.errors import CheckpointError, ClipitaError
from clipita.model import Model

CAPTIONS = "captions.jsonl"

FloatArray = npt.NDArray[np.float32]


def compare(reference: Model, other: Model, folder: Path) -> dict[str, float]:
    """Cosines between the embeddings of two models on a set of pictures, and the scores of both.

    Args:
        reference, other: Two forms of one model.
        folder: With a `captions.jsonl`, whose lines are {"image_path": ..., "captions": [...]}, pictures are searched
            by their captions: "recall" is the share of captions whose own picture comes first. Otherwise every folder
            in it is a label with its pictures: "accuracy" is the share of pictures whose label comes first.

    Returns:
        "images", "image_cosine", "text_cosine" (with the smallest as "..._min"), "accuracy" or "recall" of the
        reference, that of the other as "other_...", and "same": how often both give the same answer.

    Raises:
        ClipitaError: the set holds no pictures, or an image or a line of it cannot be used.
    """
    captions = folder / CAPTIONS
    keys, texts, owners = _captioned(captions) if captions.is_file() else _labelled(folder)
    pictures = [model.encode_image([folder / key for key in keys]) for model in (reference, other)]
    if captions.is_file():
        sentences = [model.encode_text(texts, on_truncate="ignore") for model in (reference, other)]
        answers = [(b @ a.T).argmax(1) for a, b in zip(pictures, sentences, strict=True)]
        score = "recall"
    else:
        sentences = [model.label_bank(texts).embeddings for model in (reference, other)]
        answers = [(a @ b.T).argmax(1) for a, b in zip(pictures, sentences, strict=True)]
        score = "accuracy"
    right = [float((found == np.array(owners)).mean()) for found in answers]
    return {
        "images": len(keys),
        **_cosines("image", *pictures),
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


def _labelled(folder: Path) -> tuple[list[str], list[str], list[int]]:
    labels = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    keys: list[str] = []
    owners: list[int] = []
    for index, label in enumerate(labels):
        found = list_images(folder / label)[0]
        keys += [f"{label}/{key}" for key in found]
        owners += [index] * len(found)
    if not keys:
        raise ClipitaError(
            f"{str(folder)!r} is no set to check on: it has neither {CAPTIONS} nor folders that are called as their "
            "pictures are labelled."
        )
    return keys, labels, owners


def _captioned(path: Path) -> tuple[list[str], list[str], list[int]]:
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
    return keys, texts, owners


def _cosines(tower: str, first: FloatArray, second: FloatArray) -> dict[str, float]:
    from clipita.convert.fidelity import cosines

    return cosines(tower, [first], [second])

"""Provide the package's functions `encode_text`, `encode_image` and `zero_shot` over one default model."""

import os
import threading
from collections.abc import Iterable, Sequence
from typing import overload

from clipita.images.pixels import Crop, ImageInput
from clipita.loading.load import DEFAULT_MODEL, load
from clipita.model import Model
from clipita.system.arrays import FloatArray
from clipita.system.process import in_forked_children
from clipita.text.tokenizer import OnTruncate
from clipita.zero_shot import LabelBank, LabelScore

_model: Model | None = None
_lock = threading.Lock()


def _new_lock() -> None:
    """Replace the lock in a forked child: a thread that held it in the parent does not exist there."""
    global _lock
    _lock = threading.Lock()


in_forked_children(_new_lock)


def default_model() -> Model:
    """Return the model that $CLIPITA_MODEL names, or the embedded one. It is loaded once, at first use.

    Raises:
        ModelNotFoundError, CheckpointError, BackendError: As `load`.
    """
    global _model
    with _lock:
        if _model is None:
            _model = load(os.environ.get("CLIPITA_MODEL") or DEFAULT_MODEL)
        return _model


def encode_text(texts: str | Iterable[str], *, batch_size: int = 64, on_truncate: OnTruncate = "warn") -> FloatArray:
    """Embed one text or many with the default model.

    Args:
        texts: As for `Model.encode_text`.
        batch_size: As for `Model.encode_text`.
        on_truncate: As for `Model.encode_text`.

    Returns:
        Float32 of unit norm, (E,) for a str, (N, E) for many.

    Raises:
        TextError: As `Model.encode_text`.
        ModelNotFoundError, CheckpointError, BackendError: The default model cannot be loaded.
    """
    return default_model().encode_text(texts, batch_size=batch_size, on_truncate=on_truncate)


def encode_image(images: ImageInput | Iterable[ImageInput], *, crop: Crop = "auto", batch_size: int = 32) -> FloatArray:
    """Embed one image or many with the default model.

    Args:
        images: As for `Model.encode_image`.
        crop: As for `Model.encode_image`.
        batch_size: As for `Model.encode_image`.

    Returns:
        Float32 of unit norm, (E,) for one image, (N, E) for many.

    Raises:
        ImageError: As `Model.encode_image`.
        ModelNotFoundError, CheckpointError, BackendError: The default model cannot be loaded.
    """
    return default_model().encode_image(images, crop=crop, batch_size=batch_size)


@overload
def zero_shot(  # pyright: ignore[reportOverlappingOverload]
    images: ImageInput,
    labels: Iterable[str] | LabelBank,
    *,
    templates: str | Sequence[str] | None = None,
    top_k: int | None = None,
    min_cosine: float | None = None,
    crop: Crop = "auto",
    batch_size: int = 32,
) -> list[LabelScore]: ...


@overload
def zero_shot(
    images: Iterable[ImageInput],
    labels: Iterable[str] | LabelBank,
    *,
    templates: str | Sequence[str] | None = None,
    top_k: int | None = None,
    min_cosine: float | None = None,
    crop: Crop = "auto",
    batch_size: int = 32,
) -> list[list[LabelScore]]: ...


def zero_shot(
    images: ImageInput | Iterable[ImageInput],
    labels: Iterable[str] | LabelBank,
    *,
    templates: str | Sequence[str] | None = None,
    top_k: int | None = None,
    min_cosine: float | None = None,
    crop: Crop = "auto",
    batch_size: int = 32,
) -> list[LabelScore] | list[list[LabelScore]]:
    """Find the labels that fit an image with the default model.

    Args:
        images: As for `Model.zero_shot`.
        labels: As for `Model.zero_shot`. Without templates a bare noun gets its article: "gatto" becomes "un gatto".
        templates: As for `Model.zero_shot`.
        top_k: As for `Model.zero_shot`.
        min_cosine: As for `Model.zero_shot`: labels that do not fit are left out, even all of them.
        crop: As for `Model.zero_shot`. In a panorama each label gets the score of the tile that it fits best.
        batch_size: As for `Model.zero_shot`.

    Returns:
        Labels with their shares of the probability, best first: a list for one image, a list of lists for many.

    Raises:
        ImageError, TextError: As `Model.zero_shot`.
        ModelNotFoundError, CheckpointError, BackendError: The default model cannot be loaded.
    """
    return default_model().zero_shot(
        images,
        labels,
        templates=templates,
        top_k=top_k,
        min_cosine=min_cosine,
        crop=crop,
        batch_size=batch_size,
    )

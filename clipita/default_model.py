"""The functions of the package, over one default model."""

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
    """The model that $CLIPITA_MODEL names, or the embedded one; loaded once, at first use."""
    global _model
    with _lock:
        if _model is None:
            _model = load(os.environ.get("CLIPITA_MODEL") or DEFAULT_MODEL)
        return _model


def encode_text(texts: str | Iterable[str], *, batch_size: int = 64, on_truncate: OnTruncate = "warn") -> FloatArray:
    """`Model.encode_text` of the default model: (E,) for a str, (N, E) for many, float32 of unit norm."""
    return default_model().encode_text(texts, batch_size=batch_size, on_truncate=on_truncate)


def encode_image(images: ImageInput | Iterable[ImageInput], *, crop: Crop = "auto", batch_size: int = 32) -> FloatArray:
    """`Model.encode_image` of the default model: (E,) for one image, (N, E) for many, float32 of unit norm."""
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
    """`Model.zero_shot` of the default model: labels with their shares of the probability, best first.

    Without templates a bare noun is asked for with its article: "gatto" as "un gatto". With `min_cosine` labels that
    do not fit are left out, and a photograph of none of them gives an empty list. Of a panorama the
    best of its tiles counts.
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

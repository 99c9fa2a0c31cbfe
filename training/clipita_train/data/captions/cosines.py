"""Measure how well captions fit their photographs, by the embeddings of any model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

import clipita
from clipita.images.pixels import ImageInput
from clipita.system.arrays import Array
from clipita_train.towers.features import cached_rows


def cosines(
    model: clipita.Model,
    images: Sequence[ImageInput],
    captions: Sequence[Sequence[str]],
    *,
    keys: Sequence[str] | None = None,
    cache: Path | None = None,
) -> list[list[float]]:
    """Compute the cosine between each caption and its row's image.

    Args:
        model: Any model that `clipita.load` returns; longer captions are cut.
        images: One image for each row, of any kind that `model.encode_image` takes.
        captions: For each row any number of captions; blank ones get NaN.
        keys: For each image a name in the cache, e.g. a hash of its bytes; needed with `cache`.
        cache: A folder in which embeddings are kept, by the model's fingerprint; all shards can share it.

    Returns:
        The cosines of each row's captions, from -1 to 1; NaN if the image cannot be read.

    Raises:
        ValueError: Images, captions or keys differ in number, or there is a cache without keys.
    """
    if not len(images) == len(captions) == len(images if keys is None else keys) or (cache and keys is None):
        raise ValueError(
            f"expected as many captions and keys as images, and keys with a cache: {len(images)} images,"
            f" {len(captions)} rows of captions, {'no' if keys is None else len(keys)} keys"
        )

    def encode_images(some: Sequence[ImageInput]) -> Array:
        rows = np.full((len(some), model.embed_dim), np.nan, np.float32)
        for row, result in zip(rows, model.iter_encode_image(some), strict=True):
            if result.embedding is not None:
                row[:] = result.embedding
        return rows

    def encode_texts(some: Sequence[str]) -> Array:
        return model.encode_text(list(some), on_truncate="ignore")

    texts = list(dict.fromkeys(text for row in captions for text in row if text.strip()))
    if cache is None or keys is None:
        image_rows, text_rows = encode_images(images), encode_texts(texts)
    else:
        found = dict(zip(keys, images, strict=True))
        width, fingerprint = model.embed_dim, model.fingerprint
        image_rows = cached_rows(
            *(list(keys), fingerprint, cache / "images", lambda some: encode_images([found[key] for key in some])),
            *(width, "images"),
            dtype=np.float32,
        )
        text_rows = cached_rows(texts, fingerprint, cache / "texts", encode_texts, width, "captions", dtype=np.float32)
    place = {text: i for i, text in enumerate(texts)}
    return [
        [float(image @ text_rows[place[text]]) if text in place else float("nan") for text in row]
        for image, row in zip(image_rows, captions, strict=True)
    ]

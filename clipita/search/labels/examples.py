"""Make labels out of photographs that show them: a dog of one's own has no word that a model knows.

Sentences and photographs have directions of their own kind, and photographs are nearer to each other than to any
sentence. So a label's photographs tell only by what distinguishes them from others, which is added to a sentence: to
the label's own words if there are any, and otherwise to what all sentences have in common. Such a label may stand among
words; its cosines are still higher than theirs, which its threshold takes into account (see `labeling`).
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from clipita.errors import ClipitaError, ImageError, TextError
from clipita.images.decode import ImageInput
from clipita.images.photo_files import find_photos
from clipita.model import Model
from clipita.search.cosines import FloatVectors
from clipita.search.presence import background_phrases
from clipita.zero_shot import LabelBank, check_labels

_USUAL_SENTENCES = 100  # enough for their mean; all of the background takes seconds


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ExamplesBank(LabelBank):
    """Labels of which some, or all, are known by photographs. Made by `examples_bank`.

    Attributes:
        from_photos: The labels that have photographs.
    """

    from_photos: frozenset[str]


def examples_bank(
    model: Model,
    examples: Mapping[str, Sequence[ImageInput]],
    *,
    words: Iterable[str] = (),
    usual_sentence: FloatVectors | None = None,
    usual_photo: FloatVectors | None = None,
) -> ExamplesBank:
    """Embed labels by photographs that show them, for `Model.zero_shot` and `Index.label`.

    Three photographs of a label do; with one or two its word, if it has one, helps.

    Args:
        model: The model.
        examples: For each label its photographs, {"Argo": ["argo1.jpg", "argo2.jpg", "argo3.jpg"]}.
        words: Labels in words. One that has examples too is known by both.
        usual_sentence: (E,) the mean of many sentences; None means that of some everyday ones.
        usual_photo: (E,) the mean of many photographs. None means that of the examples, if there are labels to tell
            apart; `Index.examples_bank` takes the archive's.

    Returns:
        First the labels in words, then the others with examples, in their order.

    Raises:
        TextError: a label is not text or comes twice, or there is none.
        ImageError: a label has no photograph, or one cannot be read.
    """
    in_words = check_labels(words) if (words := tuple(words)) else ()
    labels = (*in_words, *(label for label in check_labels(examples) if label not in in_words))
    means = {label: _mean_of(model, label, photos) for label, photos in examples.items()}
    if usual_sentence is None:
        phrases = background_phrases()
        usual_sentence = model.encode_text(phrases[:: len(phrases) // _USUAL_SENTENCES]).mean(axis=0)
    if usual_photo is None:
        usual_photo = np.mean(list(means.values()), axis=0) if len(means) > 1 else np.zeros_like(usual_sentence)
    texts = dict(zip(in_words, model.label_bank(in_words).embeddings, strict=True)) if in_words else {}
    rows = [
        texts[label] if label not in means else texts.get(label, usual_sentence) + means[label] - usual_photo
        for label in labels
    ]
    embeddings = np.array(rows, np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=-1, keepdims=True)
    return ExamplesBank(labels, embeddings, model.fingerprint, frozenset(means))


def read_examples(folder: str | os.PathLike[str]) -> dict[str, list[Path]]:
    """Return the photographs in each folder of a folder, under the folder's name.

    Raises:
        ClipitaError: there is no folder with photographs in it.
    """
    top = Path(folder)
    found: dict[str, list[Path]] = {}
    for key in find_photos(top).keys:
        name, _, rest = key.partition("/")
        if rest:
            found.setdefault(name, []).append(top / key)
    if not found:
        raise ClipitaError(
            f"{str(top)!r} holds no examples: it should have one folder for each label, named like it, with some "
            "photographs in it."
        )
    return found


def _mean_of(model: Model, label: str, photos: Sequence[ImageInput]) -> FloatVectors:
    if isinstance(photos, str | bytes | os.PathLike):
        raise TextError(f"the examples of {label!r} must be a list of photographs, not {photos!r}.")
    if not photos:
        raise ImageError(f"{label!r} has no example: give at least one photograph, better three to ten.")
    mean = model.encode_image(photos).mean(axis=0)
    return mean / np.linalg.norm(mean)

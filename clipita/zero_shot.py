"""Give labels probabilities: check labels and templates, embed them, and turn cosines into scores."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clipita.errors import TextError
from clipita.system.arrays import FloatArray
from clipita.text.italian import in_template
from clipita.text.tokenizer import check_text


class LabelScore(NamedTuple):
    """A label and its probability, 0 to 1.

    The scores of all labels of a bank sum to 1. From a model that was trained with sigmoids (SigLIP), a score is the
    probability of this label by itself, whatever the others are.
    """

    label: str
    score: float


@dataclasses.dataclass(frozen=True, eq=False)
class LabelBank:
    """Labels with their embeddings, computed once for many images. Made by `Model.label_bank`.

    Attributes:
        labels: K distinct labels.
        embeddings: (K, E) float32, unit norm.
        fingerprint: The fingerprint of the model that made it; no other model may use it.
    """

    labels: tuple[str, ...]
    embeddings: FloatArray
    fingerprint: str

    def __repr__(self) -> str:
        return f"LabelBank({len(self.labels)} labels, fingerprint={self.fingerprint!r})"


def check_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the labels as a tuple, each of them checked.

    Raises:
        TextError: There are none, they are not a list of str, or one is blank or not text.
    """
    if isinstance(labels, str | bytes) or not isinstance(labels, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TextError(f"labels must be a list such as ['cane', 'gatto'], not {labels!r}.")
    checked = tuple(check_text(label, f"labels[{index}]") for index, label in enumerate(labels))
    if not checked:
        raise TextError("labels is empty: give at least one, e.g. ['cane', 'gatto'].")
    return checked


def check_distinct(labels: Sequence[str], phrases: Sequence[str]) -> None:
    """Check that no two labels become the same phrase.

    Args:
        labels: K labels.
        phrases: For each label the phrase that the model reads: with its article, in the spelling that the model was
            trained on.

    Raises:
        TextError: Two labels become the same phrase.
    """
    phrase, count = Counter(phrases).most_common(1)[0]
    if count == 1:
        return
    first = phrases.index(phrase)
    second = phrases.index(phrase, first + 1)
    if labels[first] == labels[second]:
        raise TextError(
            f"labels[{first}] and labels[{second}] are both {labels[first]!r}; they would share its score. Remove one."
        )
    raise TextError(
        f"labels[{first}] {labels[first]!r} and labels[{second}] {labels[second]!r} are both asked for as {phrase!r}; "
        "they would share its score. Remove one."
    )


def check_templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    """Return the templates as a tuple, each of them checked.

    Raises:
        TextError: There are none, or one does not have exactly one "{}".
    """
    if not isinstance(templates, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TextError(f"templates must be a str or a list such as ['una foto di {{}}'], not {templates!r}.")
    checked: tuple[str, ...] = (templates,) if isinstance(templates, str) else tuple(templates)
    if not checked:
        raise TextError("templates is empty: give at least one, e.g. ['una foto di {}'].")
    for index, template in enumerate(checked):
        found = check_text(template, f"templates[{index}]").count("{}")
        if found != 1:
            raise TextError(
                f"templates[{index}] must have one {{}} where the label goes, but {template!r} has {found}."
            )
    return checked


def embed_labels(
    encode_text: Callable[[list[str]], FloatArray], labels: Sequence[str], templates: Sequence[str]
) -> FloatArray:
    """Embed labels in templates: for each label the mean of its unit vectors over all templates, normalized again.

    Args:
        encode_text: Embeds texts as (N, E) of unit norm.
        labels: K labels.
        templates: T templates.

    Returns:
        (K, E) float32, unit norm.
    """
    texts = [in_template(template, label) for template in templates for label in labels]
    embeddings = encode_text(texts).reshape(len(templates), len(labels), -1).mean(axis=0)  # (T, K, E) -> (K, E)
    return embeddings / np.linalg.norm(embeddings, axis=-1, keepdims=True)


def probabilities(cosines: FloatArray, logit_scale: float, logit_bias: float | None = None) -> npt.NDArray[np.float64]:
    """Turn cosines into probabilities of labels: (N, K) float32 -> (N, K) float64.

    Without a bias they are the softmax over the labels of logit_scale x cosine. With a bias, which only models with a
    sigmoid loss have, each is the sigmoid of logit_scale x cosine + logit_bias. Rows then have any sum, near 0 for a
    picture of none of the labels.

    Source: arXiv:2303.15343, section 3.
    """
    logits = logit_scale * cosines.astype(np.float64)  # (N, K)
    if logit_bias is not None:
        return np.exp(-np.logaddexp(0, -(logits + logit_bias)))  # no overflow, and small ones stay above 0
    # The largest becomes exp(0), so that scales of 100 and more do not overflow.
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def rank(
    labels: tuple[str, ...],
    scores: npt.NDArray[np.float64],
    top_k: int | None,
    fits: npt.NDArray[np.bool_] | None = None,
) -> list[LabelScore]:
    """Return the `top_k` best of (K,) scores, best first; equal scores stay in the order of the labels.

    Args:
        labels: K labels.
        scores: (K,).
        top_k: The most labels to return; None means all.
        fits: (K,), false for labels to leave out; None means that all fit.
    """
    order = np.argsort(-scores, kind="stable")
    if fits is not None:
        order = order[fits[order]]
    return [LabelScore(labels[index], float(scores[index])) for index in order[:top_k].tolist()]

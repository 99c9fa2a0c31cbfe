"""Labels with a probability each: templates, label banks, and the softmax over them, or a sigmoid of each."""

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
    """A label and its probability, 0 to 1: its share, so that all labels of a bank sum to 1, or, from a model that was
    trained with sigmoids (SigLIP), that of this label by itself, whatever the others."""

    label: str
    score: float


@dataclasses.dataclass(frozen=True, eq=False)
class LabelBank:
    """The text side of zero-shot labelling, computed once. Made by `Model.label_bank`.

    Attributes:
        labels: K distinct labels.
        embeddings: (K, E) float32, unit norm.
        fingerprint: Of the model that made it; no other may use it.
    """

    labels: tuple[str, ...]
    embeddings: FloatArray
    fingerprint: str

    def __repr__(self) -> str:
        return f"LabelBank({len(self.labels)} labels, fingerprint={self.fingerprint!r})"


def check_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the labels as a tuple, each of them checked.

    Raises:
        TextError: none, not a list of str, or one that is blank or not text.
    """
    if isinstance(labels, str | bytes) or not isinstance(labels, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TextError(f"labels must be a list such as ['cane', 'gatto'], not {labels!r}.")
    checked = tuple(check_text(label, f"labels[{index}]") for index, label in enumerate(labels))
    if not checked:
        raise TextError("labels is empty: give at least one, e.g. ['cane', 'gatto'].")
    return checked


def check_distinct(labels: Sequence[str], asked: Sequence[str]) -> None:
    """Check that no two labels are asked for by one and the same phrase.

    Args:
        labels: K labels.
        asked: For each, the phrase that the model reads: with its article, in the spelling that it was trained on.

    Raises:
        TextError: two are.
    """
    phrase, count = Counter(asked).most_common(1)[0]
    if count == 1:
        return
    first = asked.index(phrase)
    second = asked.index(phrase, first + 1)
    if labels[first] == labels[second]:
        raise TextError(
            f"labels[{first}] and labels[{second}] are both {labels[first]!r}; they would share its score. Remove one."
        )
    raise TextError(
        f"labels[{first}] {labels[first]!r} and labels[{second}] {labels[second]!r} are both asked for as {phrase!r}; "
        "they would share its score. Remove one."
    )


def check_templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    """The templates as a tuple.

    Raises:
        TextError: none, or one that does not have exactly one "{}".
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
    """(K, E) of unit norm: for each label the mean over its templates, of unit vectors, normalised again."""
    texts = [in_template(template, label) for template in templates for label in labels]
    embeddings = encode_text(texts).reshape(len(templates), len(labels), -1).mean(axis=0)  # (T, K, E) -> (K, E)
    return embeddings / np.linalg.norm(embeddings, axis=-1, keepdims=True)


def probabilities(cosines: FloatArray, logit_scale: float, logit_bias: float | None = None) -> npt.NDArray[np.float64]:
    """Softmax over the labels of logit_scale x cosine: (N, K) -> (N, K).

    With a bias, which only models with a sigmoid loss have: the sigmoid of logit_scale x cosine + logit_bias, each
    label by itself. Rows then have any sum, near 0 for a picture of none of the labels.

    Source: arXiv:2303.15343, section 3.
    """
    logits = logit_scale * cosines.astype(np.float64)  # (N, K)
    if logit_bias is not None:
        return np.exp(-np.logaddexp(0, -(logits + logit_bias)))  # overflows nothing, and keeps small ones apart
    # The largest becomes exp(0): scales of 100 and more overflow nothing.
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def rank(
    labels: tuple[str, ...],
    scores: npt.NDArray[np.float64],
    top_k: int | None,
    fits: npt.NDArray[np.bool_] | None = None,
) -> list[LabelScore]:
    """The `top_k` best of (K,) scores, of those labels that fit, best first; equal ones in the order of the labels."""
    order = np.argsort(-scores, kind="stable")
    if fits is not None:
        order = order[fits[order]]
    return [LabelScore(labels[index], float(scores[index])) for index in order[:top_k].tolist()]

"""Classify development photographs zero-shot by Italian labels, with a model as its users load it.

Every photograph of a development set is compared with one label for each class of that set, in the model's default
templates. The label is that of the concept, with its article. The calibration error is that of the scores that users
see: the softmax, over these labels, of the model's logit scale times the cosines; or, for a model that was trained with
sigmoids, the probability of each label by itself. Two further questions are asked of the same photographs:

- Unseen phrasings. Classes that have held-out synonyms are asked for by one of them, and all other classes by their
  labels. On the same photographs, a synonym that training saw is asked for too. This is done three times, each time
  with the next synonym.
- Broader kinds. "un uccello" or "un veicolo stradale" is asked for instead of the class, again with seen and held-out
  phrasings. And ten everyday labels are asked for, on photographs that show something of exactly one of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import clipita
from clipita.system.arrays import Array
from clipita.zero_shot import probabilities
from clipita_train.data.concepts import Concept, Ontology
from clipita_train.data.photographs.example import Example
from clipita_train.evaluate.embedding_cache import cache_folder
from clipita_train.evaluate.metrics import accuracy_at_k, expected_calibration_error
from clipita_train.evaluate.tasks import Question, embed_sources, questions

PHRASING_ROUNDS = 3


@dataclass(frozen=True)
class Score:
    """One line of the table, with accuracies as fractions.

    Attributes:
        task: The development set, or the question.
        photographs: How many photographs it has.
        labels: How many labels it has.
        top1: Top-1 accuracy.
        top5: Top-5 accuracy.
        calibration_error: Expected calibration error.
        seen: Top-1 with synonyms that training saw, on photographs of classes with held-out synonyms.
        unseen: Top-1 with held-out synonyms, on the same photographs.
        compared: How many photographs these are.
    """

    task: str
    photographs: int
    labels: int
    top1: float
    top5: float
    calibration_error: float
    seen: float | None = None
    unseen: float | None = None
    compared: int = 0

    def to_json(self) -> dict[str, object]:
        """Return the fields."""
        return asdict(self)


def evaluate(
    model: clipita.Model, examples: Sequence[Example], root: Path, ontology: Ontology, cache: Path | None = None
) -> list[Score]:
    """Score each source that has labeled development photographs, and each question across sources.

    Photographs that cannot be read are left out, and do not count in the numbers of photographs.

    Args:
        model: The model.
        examples: The examples of a manifest.
        root: The folder that their paths are relative to.
        ontology: The concepts.
        cache: A folder to keep embeddings in, or None.

    Raises:
        FileNotFoundError: No photograph of a source can be read.
    """
    with cache_folder(cache) as kept:
        sources = embed_sources(model, examples, root, ontology, kept)
    return [_score(question, model, ontology) for question in questions(sources, ontology)]


def _score(question: Question, model: clipita.Model, ontology: Ontology) -> Score:
    images, right = question.photographs.images, question.right
    concepts = [ontology.concepts[c] for c in question.classes]

    def embedded(phrase: Callable[[Concept], str]) -> Array:
        return model.label_bank(_distinct([phrase(concept) for concept in concepts])).embeddings

    cosines = images @ embedded(lambda concept: concept.label).T
    score = Score(
        question.task,
        len(images),
        len(concepts),
        accuracy_at_k(cosines, right, 1),
        accuracy_at_k(cosines, right, 5),
        expected_calibration_error(probabilities(cosines, model.logit_scale, model.logit_bias), right),
    )
    rows = np.isin(right, [i for i, concept in enumerate(concepts) if concept.held_out])
    if not rows.any():
        return score

    def mean_top1(phrase: Callable[[Concept, int], str]) -> float:
        rounds = [images[rows] @ embedded(lambda concept, i=i: phrase(concept, i)).T for i in range(PHRASING_ROUNDS)]
        return float(np.mean([accuracy_at_k(cosines, right[rows], 1) for cosines in rounds]))

    seen, unseen = mean_top1(_seen_phrase), mean_top1(_unseen_phrase)
    return Score(**{**asdict(score), "seen": seen, "unseen": unseen, "compared": int(rows.sum())})


def _seen_phrase(concept: Concept, i: int) -> str:
    """Return the i-th synonym that is not held out, for a concept that has held-out synonyms; otherwise the label.

    So a synonym is compared with a synonym, and not with a label.
    """
    others = concept.phrases[1:]
    return others[i % len(others)] if concept.held_out and others else concept.label


def _unseen_phrase(concept: Concept, i: int) -> str:
    return concept.held_out[i % len(concept.held_out)] if concept.held_out else concept.label


def _distinct(labels: list[str]) -> list[str]:
    """Make labels distinct, as a bank requires: a label that stood before gets a full stop at its end."""
    seen: set[str] = set()
    distinct = []
    for label in labels:
        while label in seen:
            label += "."
        seen.add(label)
        distinct.append(label)
    return distinct


def markdown(scores: Sequence[Score]) -> str:
    """Return the table, with percentages of one decimal."""
    lines = [
        "| development set | photographs | labels | top-1 | top-5 | calibration error | seen words | unseen words |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for s in scores:
        compared = (
            ("", "") if s.seen is None or s.unseen is None else (f"{s.seen:.1%} of {s.compared}", f"{s.unseen:.1%}")
        )
        lines.append(
            f"| {s.task} | {s.photographs} | {s.labels} | {s.top1:.1%} | {s.top5:.1%} | {s.calibration_error:.3f} "
            f"| {compared[0]} | {compared[1]} |"
        )
    return "\n".join(lines) + "\n"

"""Zero-shot classification of development photographs by Italian labels, with a model as its users load it.

Protocol: every photograph of a development set against one label for each class of that set, in the model's default
templates; the label is the concept's own, article included. The calibration error is that of the scores that users
see: the softmax over these labels of the model's own logit scale times the cosines, or, of a model that was trained
with sigmoids, each label's own. Two further questions are asked of the same photographs:

- unseen phrasings: classes that have held-out synonyms are asked for by one of them (all other classes by their label),
  and compared on the same photographs with a synonym that training saw; three times, each time by the next synonym;
- broader kinds: "un uccello", "un veicolo stradale" instead of the class, again with seen and with held-out phrasings;
  and ten everyday labels, all of them asked for, against the photographs that show something of exactly one of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import clipita
from clipita.zero_shot import probabilities
from clipita_train.arrays import Array
from clipita_train.data.concepts import Concept, Ontology
from clipita_train.data.photographs.example import Example
from clipita_train.evaluate.embedding_cache import cache_folder
from clipita_train.evaluate.metrics import accuracy_at_k, expected_calibration_error
from clipita_train.evaluate.tasks import Question, embed_sources, questions

PHRASING_ROUNDS = 3


@dataclass(frozen=True)
class Score:
    """One line of the table: accuracies as fractions; `seen` and `unseen` are top-1 on the photographs of both."""

    task: str
    photographs: int
    labels: int
    top1: float
    top5: float
    calibration_error: float
    seen: float | None = None
    unseen: float | None = None
    compared: int = 0  # photographs behind `seen` and `unseen`

    def to_json(self) -> dict[str, object]:
        """Its fields."""
        return asdict(self)


def evaluate(
    model: clipita.Model, examples: Sequence[Example], root: Path, ontology: Ontology, cache: Path | None = None
) -> list[Score]:
    """A score for each source that has labelled development photographs, and one for each question across sources.

    Photographs that cannot be read are left out; the numbers of photographs say how many were.
    Embeddings are kept in `cache`, if it is given.

    Raises:
        FileNotFoundError: no photograph of a source can be read.
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
    """For a concept with held-out synonyms its i-th other synonym, if it has one: like against like."""
    others = concept.phrases[1:]
    return others[i % len(others)] if concept.held_out and others else concept.label


def _unseen_phrase(concept: Concept, i: int) -> str:
    return concept.held_out[i % len(concept.held_out)] if concept.held_out else concept.label


def _distinct(labels: list[str]) -> list[str]:
    """Two concepts may share a synonym; the second then keeps a trailing full stop, so that a bank can hold both."""
    seen: set[str] = set()
    distinct = []
    for label in labels:
        while label in seen:
            label += "."
        seen.add(label)
        distinct.append(label)
    return distinct


def markdown(scores: Sequence[Score]) -> str:
    """The table, percentages with one decimal."""
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

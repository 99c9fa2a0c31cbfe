"""Classify labeled photographs zero-shot, with several models, label sets and phrasings.

Every photograph is compared with all labels of the set, also with those of which there is no photograph. A label that
ties with the right one ranks before it, so two classes with the same label are both wrong at 1.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

import clipita
from clipita.system.arrays import Array
from clipita.text.italian import TEMPLATES
from clipita.zero_shot import check_templates, embed_labels, probabilities
from clipita_train.evaluate.embedding_cache import embed_images, embed_texts
from clipita_train.evaluate.image_folders import LabeledImages
from clipita_train.evaluate.label_sets import LabelSet
from clipita_train.evaluate.metrics import calibration_error, found_at
from clipita_train.evaluate.retrieval import best_ranks
from clipita_train.intervals import Difference, Estimate, differences, estimates

CUTOFFS = (1, 5, 10, 100)
METRICS = tuple(f"Acc@{k}" for k in CUTOFFS)
PHOTOGRAPHS = 512  # number of photographs whose scores against all labels are held at a time


@dataclass(frozen=True)
class Phrasing:
    """A way to ask for labels.

    Attributes:
        name: Name in the tables.
        templates: The templates; None takes the model's own.
        articles: Whether labels have their articles.
    """

    name: str
    templates: tuple[str, ...] | None
    articles: bool = True


PHRASINGS = {
    "model": Phrasing("model", None),
    "article": Phrasing("article", ("{}",)),
    "bare": Phrasing("bare", ("{}",), articles=False),
    "ensemble": Phrasing("ensemble", TEMPLATES),
}


def read_phrasing(name: str) -> Phrasing:
    """Return one of `PHRASINGS`, or read a file with a template on each line.

    Raises:
        FileNotFoundError: There is no such file.
        TextError: A template has no "{}".
    """
    if name in PHRASINGS:
        return PHRASINGS[name]
    if not Path(name).is_file():
        raise FileNotFoundError(f"no templates {name!r}: expected a file, or one of {', '.join(PHRASINGS)}")
    lines = [line.strip() for line in Path(name).read_text("utf-8-sig").splitlines()]
    return Phrasing(Path(name).name, check_templates([line for line in lines if line]))


@dataclass(frozen=True)
class ClassScore:
    """The accuracies on one class, and the class that its other photographs were most often taken for."""

    id: str
    label: str
    photographs: int
    top1: float
    top5: float
    taken_for: str | None


@dataclass(frozen=True)
class Confusion:
    """The photographs of one class that were taken for another."""

    shown: str
    said: str
    photographs: int
    of: int


@dataclass(frozen=True)
class ZeroShotScores:
    """The scores of a model with one label set and phrasing, and their differences from the first of the report."""

    model: str
    fingerprint: str
    precision: str
    license: str
    labels: str
    phrasing: str
    templates: tuple[str, ...]
    twins: int  # number of classes that share their label
    accuracy: dict[str, Estimate]
    mean_of_classes: float  # Acc@1, each class weighing the same
    calibration_error: float
    differences: dict[str, Difference] | None
    classes: tuple[ClassScore, ...]
    confused: tuple[Confusion, ...]


@dataclass(frozen=True)
class ZeroShotReport:
    """The photographs and labels, and the scores of each model, label set and phrasing."""

    photographs: int
    classes_shown: int
    labels: int
    unreadable: tuple[str, ...]
    strangers: dict[str, int]
    rows: tuple[ZeroShotScores, ...]

    def to_json(self) -> dict[str, object]:
        """Return the fields."""
        return asdict(self)


def classify(
    models: Iterable[clipita.Model],
    photographs: LabeledImages,
    label_sets: Sequence[LabelSet],
    phrasings: Sequence[Phrasing],
    cache: Path,
) -> ZeroShotReport:
    """Score models, label sets and phrasings on the photographs that all models can read.

    Args:
        models: At least one; taken one after another, and not kept.
        photographs: Their classes are places in every one of the label sets.
        label_sets: At least one, all with the same ids in the same order.
        phrasings: At least one.
        cache: A folder to keep embeddings in.

    Raises:
        FileNotFoundError: No photograph can be read.
        ValueError: Label sets have different ids.
    """
    if any(labels.ids != label_sets[0].ids for labels in label_sets):
        raise ValueError("all label sets need the same ids in the same order, and these differ")
    embedded: list[tuple[Array, Array]] = []
    asked: list[_Asked] = []
    for i, model in enumerate(models):
        embedded.append(embed_images(model, photographs.paths, cache))
        for labels, phrasing in itertools.product(label_sets, phrasings):
            templates = phrasing.templates or model.templates
            rows = _embed_labels(model, labels.phrases(articles=phrasing.articles), templates, cache)
            facts = (model.name, model.fingerprint, model.precision, model.license)
            scale = (model.logit_scale, model.logit_bias)
            asked.append(_Asked(i, facts, scale, labels, replace(phrasing, templates=templates), rows))
    readable = np.all([good for _, good in embedded], axis=0)
    if not readable.any():
        raise FileNotFoundError(
            f"none of the {len(readable)} photographs can be read; the first: {photographs.paths[0]}"
        )
    shown = np.array(photographs.classes)[readable]
    results: list[ZeroShotScores] = []
    first: Array | None = None
    for one in asked:
        ranks, said, sure = top_labels(embedded[one.model][0][readable], one.embeddings, shown, *one.scale)
        values = np.stack([found_at(ranks, k) for k in CUTOFFS], axis=1)
        error = calibration_error(sure, found_at(ranks, 1))
        results.append(_row(one, values, error, first, *_by_class(one.labels, shown, ranks, said)))
        first = values if first is None else first
    unreadable = tuple(str(path) for path, good in zip(photographs.paths, readable, strict=True) if not good)
    size = len(label_sets[0].ids)
    return ZeroShotReport(len(shown), len(np.unique(shown)), size, unreadable, photographs.strangers, tuple(results))


@dataclass(frozen=True)
class _Asked:
    """A model with a label set and a phrasing.

    Attributes:
        model: Place of the model.
        facts: The first fields of `ZeroShotScores`.
        scale: Logit scale and bias of the model.
        labels: The label set.
        phrasing: The phrasing, with its templates.
        embeddings: (K, E) embeddings of the labels.
    """

    model: int
    facts: tuple[str, str, str, str]
    scale: tuple[float, float | None]
    labels: LabelSet
    phrasing: Phrasing
    embeddings: Array


def _row(
    asked: _Asked,
    values: Array,
    error: float,
    first: Array | None,
    classes: tuple[ClassScore, ...],
    confused: tuple[Confusion, ...],
) -> ZeroShotScores:
    """Make the scores from the values (N, M) of the `METRICS`, the calibration error and the first row's values."""
    each = np.arange(len(values))
    assert asked.phrasing.templates is not None
    return ZeroShotScores(
        *asked.facts,
        asked.labels.name,
        asked.phrasing.name,
        asked.phrasing.templates,
        asked.labels.twins,
        dict(zip(METRICS, estimates(values, each), strict=True)),
        float(np.mean([one.top1 for one in classes])),
        error,
        None if first is None else dict(zip(METRICS, differences(first, values, each), strict=True)),
        classes,
        confused,
    )


def top_labels(
    images: Array, labels: Array, shown: Array, logit_scale: float, logit_bias: float | None = None
) -> tuple[Array, Array, Array]:
    """Classify photographs.

    Args:
        images: (N, E) float of unit norm.
        labels: (K, E) likewise.
        shown: (N,) integers, the right labels.
        logit_scale: The model's, as `clipita.zero_shot.probabilities` takes it.
        logit_bias: The model's, likewise.

    Returns:
        The rank (N,) of each right label, with ties against it; the likeliest label (N,); and its probability (N,).
    """
    ranks = best_ranks(images, labels, (np.arange(len(images)), shown))
    said = np.empty(len(images), np.int64)
    sure = np.empty(len(images))
    for start in range(0, len(images), PHOTOGRAPHS):
        block = slice(start, start + PHOTOGRAPHS)
        cosines = images[block] @ labels.T
        said[block] = cosines.argmax(1)
        sure[block] = probabilities(cosines, logit_scale, logit_bias).max(1)
    return ranks, said, sure


def _embed_labels(model: clipita.Model, phrases: list[str], templates: Sequence[str], cache: Path) -> Array:
    """Embed labels (K, E); equal labels are embedded once, so that they tie exactly."""
    distinct = list(dict.fromkeys(phrases))
    rows = embed_labels(lambda texts: embed_texts(model, texts, cache), distinct, templates)
    place = {phrase: i for i, phrase in enumerate(distinct)}
    return rows[[place[phrase] for phrase in phrases]]


def _by_class(
    labels: LabelSet, shown: Array, ranks: Array, said: Array
) -> tuple[tuple[ClassScore, ...], tuple[Confusion, ...]]:
    """Return the scores of the classes, in the order of the label set, and the confused pairs, most frequent first."""
    wrong = ranks > 1
    pairs = Counter(
        (one, other) for one, other in zip(shown[wrong].tolist(), said[wrong].tolist(), strict=True) if one != other
    )
    taken: dict[int, int] = {}
    for (one, other), _ in pairs.most_common():
        taken.setdefault(one, other)
    sizes = np.bincount(shown, minlength=len(labels.ids))
    top1, top5 = (np.bincount(shown, found_at(ranks, k), len(labels.ids)) for k in (1, 5))
    classes = tuple(
        ClassScore(
            labels.ids[i],
            labels.labels[i],
            int(sizes[i]),
            float(top1[i] / sizes[i]),
            float(top5[i] / sizes[i]),
            labels.labels[taken[i]] if i in taken else None,
        )
        for i in np.flatnonzero(sizes).tolist()
    )
    confused = tuple(
        Confusion(labels.labels[one], labels.labels[other], count, int(sizes[one]))
        for (one, other), count in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    )
    return classes, confused

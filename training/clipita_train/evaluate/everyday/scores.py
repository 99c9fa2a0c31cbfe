"""Score models on the everyday development sets: labels, search, what is absent, and sentences.

| score | is |
|---|---|
| named, strict | share of photographs whose first label is the best one |
| named | the same, where labels that are not wrong count as right too |
| first right | share of queries whose first photograph is relevant |
| average precision | its mean over queries (mAP); acceptable photographs are passed over |
| precision at 5 | relevant and acceptable photographs among the first five, as a share of all that there could be |
| present above absent | AUROC of the best cosine, of queries that the archive shows against those that it does not |
| MRR@10, Recall@1 | the rank of the photograph that a sentence is about, among all photographs with sentences |
"""

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import clipita
from clipita.system.arrays import Array
from clipita_train.evaluate.embedding_cache import embed_images, embed_texts
from clipita_train.evaluate.everyday.sets import ARCHIVE, SENTENCES, SETS, SMALL, Query, everyday_sets, files
from clipita_train.evaluate.metrics import area_under_curve, found_at, ordered_relevance, ranks
from clipita_train.evaluate.retrieval import METRICS, retrieve
from clipita_train.intervals import DRAWS, LEVEL, SEED, Difference, Estimate, differences, estimates

AREA = "present above absent"


@dataclass(frozen=True)
class Row:
    """A score of all models.

    Attributes:
        set: The development set.
        score: The name of the score.
        count: How many photographs, queries or sentences it is the mean of.
        estimates: One for each model.
        differences: From the first model, one for each other model; empty for `AREA`, which is no mean of queries.
    """

    set: str
    score: str
    count: int
    estimates: tuple[Estimate, ...]
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class EverydayScores:
    """The rows of the table, and the models with their fingerprints."""

    models: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, object]:
        """Return the fields."""
        return asdict(self)


@dataclass(frozen=True)
class ArchiveSearch:
    """The archive's answers to its queries.

    Attributes:
        queries: Q queries.
        names: The names of the N photographs of the archive.
        cosines: (Q, N) float.
        relevant: (Q, N) bool.
        acceptable: (Q, N) bool.
    """

    queries: tuple[Query, ...]
    names: tuple[str, ...]
    cosines: Array
    relevant: Array
    acceptable: Array


@dataclass(frozen=True)
class _Answers:
    """The answers of a model to one set: values (Q,) of each score; for the archive, best cosines of queries too."""

    values: dict[str, Array]
    present: Array
    absent: Array


def measure(
    models: Iterable[clipita.Model],
    root: Path,
    cache: Path,
    *,
    only: Collection[str] = SETS,
    without: Collection[str] = (),
) -> EverydayScores:
    """Score every model on every set.

    Args:
        models: At least one; taken one after another, and not kept.
        root: Holds the clones of the photographs, as OWNER/NAME.
        cache: Keeps embeddings.
        only: The sets to ask, of `SETS`.
        without: Repositories whose photographs are left out.

    Raises:
        FileNotFoundError: A clone is missing; the message says how to get it.
        ValueError: A photograph cannot be read, or nothing is left to ask.
    """
    wanted = [photograph for photograph in everyday_sets().photographs if not set(only).isdisjoint(photograph.sets)]
    places = files(wanted, root, without)
    left = {name for photograph in wanted if photograph.id in places for name in photograph.sets}
    if empty := [name for name in SETS if name in only and name not in left]:
        raise ValueError(f"no photograph is left of {', '.join(empty)}; name the sets to ask with --only")
    facts: list[tuple[str, str]] = []
    answers: list[dict[str, _Answers]] = []
    for model in models:
        images = embedded(model, places, cache)
        facts.append((model.name, model.fingerprint))
        answers.append({name: _ask(name, model, images, cache) for name in SETS if name in only})
    rows = [row for name in answers[0] for row in _rows(name, [one[name] for one in answers])]
    return EverydayScores(tuple(facts), tuple(rows))


def embedded(model: clipita.Model, places: dict[str, Path], cache: Path) -> dict[str, Array]:
    """Map the names of photographs to their embeddings (E,).

    Raises:
        ValueError: A photograph cannot be read.
    """
    rows, readable = embed_images(model, list(places.values()), cache)
    if not readable.all():
        raise ValueError(f"{[*places.values()][int(readable.argmin())]} cannot be read: is the clone complete?")
    return dict(zip(places, rows, strict=True))


def search_archive(model: clipita.Model, images: dict[str, Array], cache: Path) -> ArchiveSearch:
    """Ask the archive all queries, those with relevant photographs first.

    Args:
        model: The model.
        images: The embeddings of the photographs, by name; queries that have lost all that show them are left out.
        cache: Keeps embeddings of texts.
    """
    names = [photo.id for photo in everyday_sets().photographs if ARCHIVE in photo.sets and photo.id in images]
    place = {name: number for number, name in enumerate(names)}
    queries = everyday_sets().queries
    asked = [query for query in queries if any(name in place for name in query.relevant)]
    asked += [query for query in queries if not query.relevant]
    relevant, acceptable = (np.zeros((len(asked), len(names)), bool) for _ in range(2))
    for row, query in enumerate(asked):
        relevant[row, [place[name] for name in query.relevant if name in place]] = True
        acceptable[row, [place[name] for name in query.acceptable if name in place]] = True
    gallery = np.stack([images[name] for name in names])
    cosines = embed_texts(model, [query.text for query in asked], cache) @ gallery.T
    return ArchiveSearch(tuple(asked), tuple(names), cosines, relevant, acceptable)


def _ask(name: str, model: clipita.Model, images: dict[str, Array], cache: Path) -> _Answers:
    none = np.zeros(0)
    if name in SMALL:
        return _Answers(_named(name, model, images), none, none)
    if name == SENTENCES:
        said = {key: text for key, text in everyday_sets().sentences.items() if key in images}
        texts, pictures = embed_texts(model, list(said.values()), cache), np.stack([images[key] for key in said])
        ranked = retrieve(texts, pictures, np.arange(len(said)))["text -> image"].values()
        return _Answers({key: ranked[:, METRICS.index(key)] for key in ("MRR@10", "Recall@1")}, none, none)
    found = search_archive(model, images, cache)
    there = found.relevant.any(1)
    cosines, relevant, acceptable = found.cosines[there], found.relevant[there], found.acceptable[there]
    ordered = ordered_relevance(cosines, relevant, acceptable)
    either = ordered_relevance(cosines, relevant | acceptable, np.zeros_like(relevant))
    values = _named(name, model, images)
    values["first right"] = found_at(ranks(cosines, [np.flatnonzero(row) for row in relevant]), 1)
    values["average precision"] = np.array([_precisions(row)[row].mean() for row in ordered])
    values["precision at 5"] = np.array([row[:5].sum() / min(5, row.sum()) for row in either])
    best = found.cosines.max(1)
    return _Answers(values, best[there], best[~there])


def _precisions(relevant: Array) -> Array:
    """Return the precision of the first 1, 2, and so on of items that are relevant (N,) bool or not, best first."""
    return np.cumsum(relevant) / np.arange(1, len(relevant) + 1)


def _named(name: str, model: clipita.Model, images: dict[str, Array]) -> dict[str, Array]:
    chosen = [labeled for labeled in everyday_sets().labels if labeled.set == name]
    words = list(dict.fromkeys(labeled.label for labeled in chosen))
    shown = [labeled for labeled in chosen if labeled.id in images]
    cosines = np.stack([images[labeled.id] for labeled in shown]) @ model.label_bank(words).embeddings.T
    best = np.array([words.index(labeled.label) for labeled in shown])
    values = {"named, strict": found_at(ranks(cosines, best), 1)}
    if any(labeled.also for labeled in shown):
        fine = [[words.index(word) for word in (labeled.label, *labeled.also)] for labeled in shown]
        values["named"] = found_at(ranks(cosines, fine), 1)
    return values


def _rows(name: str, answers: list[_Answers]) -> Iterable[Row]:
    for score in answers[0].values:
        columns = [one.values[score][:, None] for one in answers]
        groups = np.arange(len(columns[0]))
        yield Row(
            name,
            score,
            len(groups),
            tuple(estimates(column, groups)[0] for column in columns),
            tuple(differences(columns[0], column, groups)[0] for column in columns[1:]),
        )
    if len(answers[0].absent):
        count = len(answers[0].present) + len(answers[0].absent)
        yield Row(name, AREA, count, tuple(_area(one.present, one.absent) for one in answers), ())


def _area(present: Array, absent: Array) -> Estimate:
    """Return the AUROC, with an interval of draws of both kinds of queries."""
    random = np.random.default_rng(SEED)
    drawn = [
        area_under_curve(random.choice(present, len(present)), random.choice(absent, len(absent))) for _ in range(DRAWS)
    ]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(area_under_curve(present, absent), float(low), float(high))


def markdown(scores: EverydayScores) -> str:
    """Return the table, with 95 % intervals, and the differences from the first model."""
    names = [name for name, _ in scores.models]
    labels = [n if names.count(n) == 1 else f"{n} {fingerprint[:8]}" for n, fingerprint in scores.models]
    more = [f"{label} - {labels[0]}" for label in labels[1:]]
    header = ["set", "score", "of", *labels, *more]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for row in scores.rows:
        cells = [f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]" for e in row.estimates]
        cells += [f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}], p {d.p:.4f}" for d in row.differences]
        if row.score == AREA:
            cells += [f"{e.value - row.estimates[0].value:+.3f}" for e in row.estimates[1:]]
        lines.append(f"| {row.set} | {row.score} | {row.count} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"

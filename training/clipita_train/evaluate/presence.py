"""Find the numbers by which `clipita search` says that an archive does not show what was asked for, and how it errs.

Queries are asked of everyday photographs, 10 to 1,999 at a time: of things that these show, of things that one to
three photographs show which are put among them, and of things that they do not show. `clipita.search.presence` says
what speaks for a query; here it is weighed, by logistic regression, each kind of query with the same weight in all.
What is reported was found on queries that the regression did not see, a tenth at a time.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

import clipita
from clipita.search.embedding_file import read_embeddings
from clipita.search.presence import Background, Presence, background_phrases

EVERYDAY = "Sarthak-Thareja/"
SIZES = (10, 50, 200, 500, 1999)
REPEATS = 2
FEW = 200  # of fewer photographs one at least shows what is asked for
LOST = 0.05  # of the queries whose thing is among the first five answers
_FOLDS = 10
_PENALTY = 3.0  # on the squares of the weights of standardized evidence


class Query(NamedTuple):
    """A line of `presence_queries.tsv`."""

    text: str
    kind: str
    photographs: tuple[str, ...]


class Asked(NamedTuple):
    """One query asked of one archive.

    Attributes:
        query: Which of the queries it is.
        group: "words", "everyday words" or "sentences".
        evidence: (4,) as of `Presence.evidence`.
        there: Whether the archive shows it.
        first: Whether a photograph that shows it is among the first five; where that is not known, whether it is there.
    """

    query: int
    group: str
    evidence: npt.NDArray[np.float64]
    there: bool
    first: bool


@dataclasses.dataclass(frozen=True)
class Errors:
    """How often a judgment errs at its threshold.

    Attributes:
        area: Under the curve of present against absent queries (AUROC).
        lost: The share of the queries whose thing is there that are refused.
        lost_of_first: The same of those whose thing is among the first five answers.
        refused: The share of the queries whose thing is not there that are refused.
        count: How often queries were asked.
    """

    area: float
    lost: float
    lost_of_first: float
    refused: float
    count: int


def read_queries() -> list[Query]:
    """Return the queries that come with this package."""
    text = resources.files("clipita_train.evaluate").joinpath("labels/presence_queries.tsv").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]
    return [Query(query, kind, tuple(names.split("; ")) if names else ()) for query, kind, names in rows]


def calibrate(
    model: clipita.Model, fingerprints: Sequence[str], embeddings: Path
) -> tuple[Presence, dict[str, dict[str, Errors]]]:
    """Weigh the evidence for a model, and say how its judgment errs.

    Args:
        model: The model.
        fingerprints: All that its embeddings may have.
        embeddings: What `clipita embed` wrote of the folder with the collections that `presence_queries.tsv` names.

    Returns:
        The judgment; and for it ("presence") and for the cosine alone ("cosine"), errors by the group of queries.

    Raises:
        ValueError: photographs that the queries name are missing.
    """
    queries = read_queries()
    stored = read_embeddings(embeddings)
    place = {key: number for number, key in enumerate(stored.keys)}
    missing = [name for query in queries for name in query.photographs if name not in place]
    if missing:
        raise ValueError(
            f"{str(embeddings)!r} lacks {len(missing):,} photographs, the first of which is {missing[0]!r}."
        )
    background = Background(model.encode_text(background_phrases()), model.logit_scale)
    unweighed = Presence(tuple(fingerprints), background, np.zeros(4), 0.0, 0.0)
    everyday = np.array([number for key, number in place.items() if key.startswith(EVERYDAY)])
    asked = list(
        _ask(queries, model.encode_text([query.text for query in queries]), stored.vectors, everyday, place, unweighed)
    )
    evidence = np.array([each.evidence for each in asked])
    there = np.array([each.there for each in asked])
    groups = np.array([each.group for each in asked])
    counts = {group: int((groups == group).sum()) for group in dict.fromkeys(groups.tolist())}
    shares = np.array([1 / counts[group] for group in groups.tolist()])
    folds = np.array([each.query for each in asked]) % _FOLDS
    unseen = np.empty(len(asked))
    for fold in range(_FOLDS):
        weights, bias = _regress(evidence[folds != fold], there[folds != fold], shares[folds != fold])
        unseen[folds == fold] = evidence[folds == fold] @ weights + bias
    weights, bias = _regress(evidence, there, shares)
    first = np.array([each.first for each in asked]) & there
    errors: dict[str, dict[str, Errors]] = {}
    thresholds: dict[str, float] = {}
    for name, values in {"presence": unseen, "cosine": evidence[:, 0]}.items():
        thresholds[name] = float(np.quantile(values[first], LOST))
        errors[name] = {
            group: _errors(values[chosen], there[chosen], first[chosen], thresholds[name])
            for group, chosen in {"all": groups != "", **{group: groups == group for group in counts}}.items()
        }
    presence = dataclasses.replace(unweighed, weights=weights, bias=bias, threshold=thresholds["presence"])
    return presence, errors


def markdown(errors: dict[str, dict[str, Errors]]) -> str:
    """Return the errors as a table."""
    lines = ["| queries | judged by | AUROC | refused of absent | lost | lost of those found | asked |"]
    lines.append("|---|---|---|---|---|---|---|")
    for group in next(iter(errors.values())):
        for name, by_group in errors.items():
            found = by_group[group]
            lines.append(
                f"| {group} | {name} | {found.area:.3f} | {found.refused:.0%} | {found.lost:.0%} | "
                f"{found.lost_of_first:.0%} | {found.count:,} |"
            )
    return "\n".join(lines)


def _ask(
    queries: list[Query],
    vectors_of_queries: npt.NDArray[np.float32],
    vectors: npt.NDArray[np.float32],
    everyday: npt.NDArray[np.int64],
    place: dict[str, int],
    presence: Presence,
) -> Iterator[Asked]:
    random = np.random.default_rng(0)
    for number, query in enumerate(queries):
        vector = vectors_of_queries[number]
        showing = np.array([place[name] for name in query.photographs], np.int64)

        def ask(
            archive: npt.NDArray[np.int64],
            group: str,
            there: bool,
            number: int = number,
            vector: npt.NDArray[np.float32] = vector,
            showing: npt.NDArray[np.int64] = showing,
        ) -> Asked:
            cosines = vectors[archive] @ vector
            first = archive[np.argsort(-cosines)[:5]]
            evidence = presence.evidence(vector, float(cosines.max()), vectors[first[0]], len(archive))
            return Asked(number, group, evidence, there, bool(np.isin(first, showing).any()) if len(showing) else there)

        for size in SIZES:
            for _ in range(REPEATS):
                some = random.permutation(everyday)[:size]
                if query.kind == "put_in":
                    yield ask(np.r_[some, random.permutation(showing)[: random.integers(1, 4)]], "words", True)
                    yield ask(some, "words", False)
                elif query.kind in ("shown", "complete"):
                    if size < FEW:
                        some[:1] = random.choice(showing)
                    if np.isin(some, showing).any():
                        yield ask(some, "everyday words", True)
                    if query.kind == "complete":
                        yield ask(np.setdiff1d(some, showing), "everyday words", False)
                elif query.kind == "absent":
                    yield ask(some, "sentences", False)
        if query.kind == "there":
            nearest = everyday[np.argsort(-(vectors[everyday] @ vector))]
            for size in (500, 1999):  # those that show it are among the nearest fortieth, as far as anybody can tell
                kept = size // 40
                others = random.permutation(nearest[kept:])[: size - kept]
                yield ask(np.r_[nearest[:kept], others], "sentences", True)


def _regress(
    evidence: npt.NDArray[np.float64], there: npt.NDArray[np.bool_], shares: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], float]:
    """Return the weights (4,) and the bias of a logistic regression, by Newton's method."""
    mean, spread = evidence.mean(axis=0), evidence.std(axis=0)
    columns = np.c_[(evidence - mean) / spread, np.ones(len(evidence))]  # (N, 5)
    shares = shares / shares.sum() * len(shares)
    penalty = _PENALTY * np.diag([1.0, 1.0, 1.0, 1.0, 0.0])
    found = np.zeros(5)
    for _ in range(50):
        chances = 1 / (1 + np.exp(-columns @ found))
        gradient = columns.T @ (shares * (chances - there)) + penalty @ found
        curvature = (columns * (shares * chances * (1 - chances))[:, None]).T @ columns + penalty
        found -= np.linalg.solve(curvature, gradient)
    return found[:4] / spread, float(found[4] - (found[:4] * mean / spread).sum())


def _errors(
    values: npt.NDArray[np.float64], there: npt.NDArray[np.bool_], first: npt.NDArray[np.bool_], threshold: float
) -> Errors:
    present, absent = values[there], np.sort(values[~there])
    below = (np.searchsorted(absent, present, "left") + np.searchsorted(absent, present, "right")) / 2
    return Errors(
        float((below / len(absent)).mean()),
        float((present < threshold).mean()),
        float((values[first] < threshold).mean()),
        float((absent < threshold).mean()),
        len(values),
    )

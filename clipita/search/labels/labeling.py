"""Give the photographs of an index labels, from their stored vectors.

Scores among the labels alone cannot say that a photograph shows none of them: the best of ten labels is the best of
ten. So each label is judged by itself, against the background phrases of `clipita.search.presence`: its share is the
probability that zero-shot gives it among these 2,033 phrases and itself. It depends on no other label and on no other
photograph, so that a longer list or a larger archive does not change what a photograph is called.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt

from clipita.errors import ClipitaError, TextError
from clipita.search.cosines import FloatVectors, HalfVectors, cosines
from clipita.search.labels.examples import ExamplesBank
from clipita.search.presence import Background
from clipita.zero_shot import LabelBank

# Shares that a label needs. On photographs that no model was trained on, 77 % of the words given at 0.2 are right, and
# labels by example are given wrongly about as rarely at 0.7. docs/en/guide/label.md has more.
WORD_SHARE = 0.2
EXAMPLE_SHARE = 0.7

_PHOTOS = 4096  # in one step: 4,096 x 255 phrases x 4 bytes = 4 MB
_PARTS = 8  # of the background; most photographs are out after the first


@dataclasses.dataclass(frozen=True)
class LabelMatch:
    """A label that a photograph was given.

    Attributes:
        label: The label.
        share: The probability that the photograph shows it and none of the background phrases, 0 to 1.
        cosine: Of the label and the photograph, -1 to 1.
    """

    label: str
    share: float
    cosine: float


@dataclasses.dataclass(frozen=True)
class Labelled:
    """A photograph and its labels.

    Attributes:
        path: Below the folder of photographs, as in `Match`.
        labels: Those that fit, best first; none if none fits.
    """

    path: str
    labels: list[LabelMatch]


def thresholds_of(bank: LabelBank, threshold: float | Mapping[str, float] | None) -> FloatVectors:
    """Return the share that each label needs, (K,).

    Args:
        bank: K labels.
        threshold: One for all, or those of some labels; the others have the usual one of their kind.

    Raises:
        TextError: there is one for a label that is not in the bank.
        ClipitaError: one is not above 0 and at most 1.
    """
    by_example = bank.from_photos if isinstance(bank, ExamplesBank) else frozenset[str]()
    needed = {label: EXAMPLE_SHARE if label in by_example else WORD_SHARE for label in bank.labels}
    given = dict.fromkeys(needed, threshold) if isinstance(threshold, float | int) else threshold or {}
    for label, share in given.items():
        if label not in needed:
            raise TextError(f"threshold has {label!r}, which is not among the labels.")
        if not 0 < share <= 1:
            raise ClipitaError(f"a threshold is a share above 0 and at most 1, and {share!r} is that of {label!r}.")
    return np.array(list({**needed, **given}.values()), np.float32)


def matches_of(
    vectors: HalfVectors,
    positions: npt.NDArray[np.int64],
    bank: LabelBank,
    background: Background,
    *,
    thresholds: FloatVectors,
    min_cosine: float | None,
    top_k: int | None,
) -> dict[int, list[LabelMatch]]:
    """Return the labels of every vector that has any, best first.

    Args:
        vectors: (N, E) of unit norm.
        positions: Those to look at.
        bank: K labels.
        background: Of the same model.
        thresholds: (K,) the share that each needs.
        min_cosine: Give every label of at least this cosine, whatever its share.
        top_k: Most labels of one vector.
    """
    found: dict[int, list[LabelMatch]] = {}
    scale = background.logit_scale
    for start in range(0, len(positions), _PHOTOS):
        block = positions[start : start + _PHOTOS]
        halves = vectors[block]
        cosine = cosines(halves, bank.embeddings)  # (B, K)
        logits = scale * cosine.astype(np.float64)  # (B, K)
        if min_cosine is None:
            # A share s is reached where the background's sum of exponentials is at most exp(logit) (1 - s) / s.
            room = logits + np.log1p(-np.minimum(thresholds, 1 - 1e-6)) - np.log(thresholds)
            best, fits = room.max(axis=1), None
            rows = np.arange(len(block))
        else:
            best, fits = logits.max(axis=1), cosine >= min_cosine
            rows = np.flatnonzero(fits.any(axis=1))
        rows, sums = _background_sums(halves, rows, best, background, prune=min_cosine is None)
        with np.errstate(over="ignore"):
            share = 1 / (1 + sums[:, None] * np.exp(best[rows, None] - logits[rows]))  # (A, K)
        given = share >= thresholds if fits is None else fits[rows]
        for row, shares, gives in zip(rows.tolist(), share, given, strict=True):
            if gives.any():
                order = np.argsort(-cosine[row], kind="stable")
                order = cast(list[int], order[gives[order]].tolist())
                found[int(block[row])] = [
                    LabelMatch(bank.labels[k], float(shares[k]), float(cosine[row, k])) for k in order[:top_k]
                ]
    return found


def _background_sums(
    halves: HalfVectors,
    rows: npt.NDArray[np.int64],
    best: npt.NDArray[np.float64],
    background: Background,
    *,
    prune: bool,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return which rows remain, and for each the sum over the background of exp(logit - best).

    Every phrase adds to a row's sum. One that is above 1 after a part of them gets no label whatever the others say,
    and is dropped: this saves most of the work, and changes no result.
    """
    sums = np.zeros(len(rows))
    for part in range(_PARTS):
        logits = cosines(halves[rows], background.vectors[part::_PARTS])
        logits *= np.float32(background.logit_scale)
        logits -= best[rows, None].astype(np.float32)
        with np.errstate(over="ignore", under="ignore"):
            sums += np.exp(logits, out=logits).sum(axis=1, dtype=np.float32)
        if prune:
            # Not 1, for the rounding of float32; what is given is decided with the whole sum.
            stay = sums <= 1.001
            rows, sums = rows[stay], sums[stay]
    return rows, sums


def labelled_files(files: Sequence[tuple[str, int]], found: Mapping[int, list[LabelMatch]]) -> list[Labelled]:
    """Return every file with the labels of what it holds; copies each have them.

    Args:
        files: Paths, each with the position of its vector.
        found: As `matches_of` returns it.
    """
    return [Labelled(path, list(found.get(position, ()))) for path, position in files]

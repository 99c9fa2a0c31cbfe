"""Measure how far answers can be trusted: calibration, and telling photographs that show none of the labels.

Both are measured on the questions with ten labels, each weighing the same. Photographs are halved by a hash of their
paths: a logit scale and thresholds are chosen on one half, and judged on the other.

A photograph shows none of the labels in two ways. Near: it is one of the question's own, and its label is left out of
the ten. Far: it comes from another source, and as far as its label says it shows nothing that is asked for. Two kinds
of photographs are left out of the far ones: small ones, which their blur would give away, and those that are only
captioned, since captions do not mention everything.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

import clipita
from clipita.system.arrays import Array
from clipita.zero_shot import probabilities
from clipita_train.data.concepts import Ontology
from clipita_train.evaluate.metrics import area_under_curve, expected_calibration_error
from clipita_train.evaluate.tasks import TEN, EmbeddedPhotographs, across, joined

SMALL = ("tiny_imagenet", "miniplaces")  # 64 and 128 pixels
SCALES = range(1, 101)
REFUSED = (0.8, 0.9, 0.95)  # shares of the photographs without any of the labels that a threshold should refuse


def _margin(cosines: Array, _: float) -> Array:
    second, best = np.partition(cosines, -2, axis=1)[:, -2:].T
    return best - second


def _energy(cosines: Array, logit_scale: float) -> Array:
    return np.log(np.exp(logit_scale * cosines.astype(np.float64)).sum(1)) / logit_scale


# Functions of cosines (N, K) and the logit scale: (N,), higher where a label more likely fits.
SIGNALS: dict[str, Callable[[Array, float], Array]] = {
    "best cosine": lambda cosines, _: cosines.max(1),
    "best probability": lambda cosines, logit_scale: probabilities(cosines, logit_scale).max(1),
    "best cosine less the second": _margin,
    "energy (arXiv:2010.03759)": _energy,
}
RECOMMENDED = "best cosine"  # the signal of `zero_shot(..., min_cosine=...)`


@dataclass(frozen=True)
class QuestionCosines:
    """The cosines of one question.

    Attributes:
        task: Name of the question.
        known: (N, K), of photographs that show one of the labels.
        right: (N,) integers, their right labels.
        chooses: (N,) bool, which of them are in the half that chooses.
        far: (M, K), of photographs of other sources that show none of the labels.
        far_chooses: (M,) bool, which of these are in the half that chooses.
    """

    task: str
    known: Array
    right: Array
    chooses: Array
    far: Array
    far_chooses: Array

    def half(self, chooses: bool) -> "QuestionCosines":
        """Return the half that chooses, or the half that judges."""
        mine, far = self.chooses == chooses, self.far_chooses == chooses
        return QuestionCosines(self.task, self.known[mine], self.right[mine], mine[mine], self.far[far], far[far])

    @property
    def near(self) -> Array:
        """(N, K - 1): the cosines of known photographs without that of the right label."""
        others = np.arange(self.known.shape[1]) != self.right[:, None]
        return self.known[others].reshape(len(self.known), -1)


@dataclass(frozen=True)
class Calibration:
    """The calibration error of a question on the half that judges.

    Attributes:
        task: Name of the question.
        photographs: How many photographs it has.
        own: The error with the model's own logit scale.
        chosen: The error with the chosen logit scale.
    """

    task: str
    photographs: int
    own: float
    chosen: float


@dataclass(frozen=True)
class Refusal:
    """The effect of a threshold on the half that judges.

    Attributes:
        task: Name of the question.
        signal: What is compared with the threshold.
        aimed: The share of near and far photographs, each kind weighing the same, refused on the half that chooses.
        threshold: Photographs with a lower signal are refused.
        near: Share of near photographs that are refused.
        far: Share of far photographs that are refused.
        wrongly: Share of known photographs that are refused.
    """

    task: str
    signal: str
    aimed: float
    threshold: float
    near: float
    far: float
    wrongly: float


@dataclass(frozen=True)
class CalibrationReport:
    """All results.

    Attributes:
        logit_scale: The model's own.
        chosen_scale: The one with the lowest cross-entropy on the half that chooses.
        calibration: Of each question.
        areas: Signal to the mean areas under the ROC curve, against near and against far photographs.
        refusals: For each signal, share to refuse and question.
    """

    logit_scale: float
    chosen_scale: float
    calibration: tuple[Calibration, ...]
    areas: dict[str, tuple[float, float]]
    refusals: tuple[Refusal, ...]

    def to_json(self) -> dict[str, object]:
        """Return the fields."""
        return asdict(self)


def ask(model: clipita.Model, sources: dict[str, EmbeddedPhotographs], ontology: Ontology) -> list[QuestionCosines]:
    """Compute the cosines of each question with ten labels.

    Args:
        model: The model.
        sources: Photographs by source, without those of `SMALL`.
        ontology: The concepts.

    Raises:
        FileNotFoundError: No photograph of any question can be read.
    """
    questions = [question for kinds in TEN if (question := across(kinds, sources, ontology)) is not None]
    if not questions:
        raise FileNotFoundError("no photograph of a question with ten labels can be read: see --root and the manifest")
    others = joined([found for found in sources.values() if not found.captioned])
    kin = (
        ontology.ancestors | ontology.ancestors.T
    )  # narrower and broader kinds: a photograph of "food" may show the pizza
    asked = []
    for question in questions:
        labels = model.label_bank([ontology.concepts[c].label for c in question.classes]).embeddings
        known, far = question.photographs, others.part(np.asarray(~kin[np.ix_(others.shown, question.classes)].any(1)))
        cosines = known.images @ labels.T, far.images @ labels.T
        asked.append(QuestionCosines(question.task, cosines[0], question.right, known.chooses, cosines[1], far.chooses))
    return asked


def judge(asked: Sequence[QuestionCosines], logit_scale: float) -> CalibrationReport:
    """Choose scale and thresholds on one half of the photographs, and judge them on the other."""
    choosing, judging = ([question.half(chooses) for question in asked] for chooses in (True, False))
    scale = float(min(SCALES, key=lambda scale: np.mean([_cross_entropy(one, scale) for one in choosing])))
    calibration = [
        Calibration(one.task, len(one.known), _calibration_error(one, logit_scale), _calibration_error(one, scale))
        for one in judging
    ]
    areas: dict[str, tuple[float, float]] = {}
    refusals: list[Refusal] = []
    for name, signal in SIGNALS.items():
        chosen_on = [_values(one, signal, logit_scale) for one in choosing]
        none = [values for _, near, far in chosen_on for values in (near, far)]
        judged = [_values(one, signal, logit_scale) for one in judging]
        near, far = (float(np.mean([area_under_curve(one[0], one[i]) for one in judged])) for i in (1, 2))
        areas[name] = near, far
        for aimed in REFUSED:
            threshold = _quantile(none, aimed)
            for one, values in zip(judging, judged, strict=True):
                wrongly, near, far = (float((some < threshold).mean()) for some in values)
                refusals.append(Refusal(one.task, name, aimed, threshold, near, far, wrongly))
    return CalibrationReport(logit_scale, scale, tuple(calibration), areas, tuple(refusals))


def markdown(report: CalibrationReport) -> str:
    """Return tables of calibration by question, of all signals, and of the recommended signal by question."""
    lines = [
        "Ten labels each. What is chosen is chosen on one half of the photographs and judged here, on the other.",
        "",
        f"| question | photographs | calibration error, logit scale {report.logit_scale:g} "
        f"| the chosen {report.chosen_scale:g} |",
        "|---|---|---|---|",
        *(f"| {c.task} | {c.photographs} | {c.own:.3f} | {c.chosen:.3f} |" for c in report.calibration),
        "",
        "Near: the same photographs without their own label. Far: those of other sources that show nothing asked for.",
        "Refused: of both kinds alike, on the half that chooses. Wrongly: of those that show a label. Means.",
        "",
        "| signal | area under the curve: near | far "
        + "".join(f"| wrongly, {aimed:.0%} refused " for aimed in REFUSED)
        + "|",
        "|---" * (3 + len(REFUSED)) + "|",
    ]
    for signal, (near, far) in report.areas.items():
        means = [_mean(report, signal, aimed).wrongly for aimed in REFUSED]
        lines.append(f"| {signal} | {near:.3f} | {far:.3f} | {' | '.join(f'{mean:.1%}' for mean in means)} |")
    lines += ["", f"| question | {RECOMMENDED} below | refused: near | far | wrongly |", "|---|---|---|---|---|"]
    for aimed in REFUSED:
        rows = [r for r in report.refusals if (r.signal, r.aimed) == (RECOMMENDED, aimed)]
        for r in [*rows, _mean(report, RECOMMENDED, aimed)]:
            lines.append(f"| {r.task} | {r.threshold:.3f} | {r.near:.1%} | {r.far:.1%} | {r.wrongly:.1%} |")
    return "\n".join(lines) + "\n"


def _values(
    question: QuestionCosines, signal: Callable[[Array, float], Array], logit_scale: float
) -> tuple[Array, ...]:
    return tuple(signal(cosines, logit_scale) for cosines in (question.known, question.near, question.far))


def _mean(report: CalibrationReport, signal: str, aimed: float) -> Refusal:
    """Return the mean of the questions."""
    rows = [r for r in report.refusals if (r.signal, r.aimed) == (signal, aimed)]
    near, far, wrongly = (
        float(np.mean(part)) for part in zip(*((r.near, r.far, r.wrongly) for r in rows), strict=True)
    )
    return Refusal("mean", signal, aimed, rows[0].threshold, near, far, wrongly)


def _calibration_error(question: QuestionCosines, scale: float) -> float:
    return expected_calibration_error(probabilities(question.known, scale), question.right)


def _cross_entropy(question: QuestionCosines, scale: float) -> float:
    return float(-np.log(probabilities(question.known, scale)[np.arange(len(question.right)), question.right]).mean())


def _quantile(groups: Sequence[Array], share: float) -> float:
    """Return a quantile of all values, with each group weighing the same."""
    values = np.concatenate(groups)
    weights = np.concatenate([np.full(len(group), 1 / len(group) / len(groups)) for group in groups])
    order = values.argsort()
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), share)])

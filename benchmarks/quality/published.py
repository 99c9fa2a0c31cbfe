"""Scores that others published. The tables show them beside our measurements, and never in their place."""

from dataclasses import dataclass

_PAPER = "arXiv:2108.08688"
_INTERNVL = "arXiv:2312.14238"  # the table of ImageNet in five languages
_OTHER_LABELS = "other Italian labels and templates"


@dataclass(frozen=True)
class Published:
    """Scores that a source gives for a model on a set.

    Attributes:
        model: The name that the tables use.
        set: Likewise.
        figures: Metric to score, as a fraction.
        source: Where it is published.
        protocol: How the source measured, where that differs from the row it stands in; blank if it does not.
    """

    model: str
    set: str
    figures: dict[str, float]
    source: str
    protocol: str = ""


def _mrr(*figures: float) -> dict[str, float]:
    return dict(zip(("MRR@1", "MRR@5", "MRR@10"), figures, strict=True))


def _acc(*figures: float) -> dict[str, float]:
    return dict(zip(("Acc@1", "Acc@5", "Acc@10", "Acc@100"), figures, strict=True))


PUBLISHED = (
    Published("CLIP-Italian", "MSCOCO-IT dev, unvalidated", _mrr(0.3797, 0.5039, 0.5204), _PAPER),
    Published("mCLIP", "MSCOCO-IT dev, unvalidated", _mrr(0.2874, 0.3957, 0.4129), _PAPER),
    Published("CLIP-Italian", "ImageNet validation", _acc(0.2211, 0.4369, 0.5255, 0.8108), _PAPER),
    Published("mCLIP", "ImageNet validation", _acc(0.2015, 0.3657, 0.4291, 0.6711), _PAPER),
    Published("OpenCLIP XLM-R base", "ImageNet validation", {"Acc@1": 0.437}, _INTERNVL, _OTHER_LABELS),
    Published("OpenCLIP XLM-R large", "ImageNet validation", {"Acc@1": 0.568}, _INTERNVL, _OTHER_LABELS),
    Published("InternVL-C", "ImageNet validation", {"Acc@1": 0.657}, _INTERNVL, _OTHER_LABELS),
)

PROTOCOLS = {
    "MSCOCO-IT dev, unvalidated": "8,486 captions of 1,696 photographs, ranked as the notebook ranks",
    "ImageNet validation": "50,000 photographs, the original's labels without a template, ties as argsort has them",
}

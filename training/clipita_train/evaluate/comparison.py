"""Compare models by retrieval on one set of photographs with captions."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import clipita
from clipita.system.arrays import Array
from clipita_train.data.captions.files import Captioned, locate
from clipita_train.evaluate.embedding_cache import embed_images, embed_texts
from clipita_train.evaluate.retrieval import DIRECTIONS, METRICS, Ranked, retrieve
from clipita_train.intervals import DRAWS, SEED, SWAPS, Difference, Estimate


@dataclass(frozen=True)
class Protocol:
    """The conditions of a measurement; scores can only be compared if these are the same."""

    captions_file: str
    photographs: int
    captions: int
    captions_per_photograph: tuple[int, int]  # fewest and most
    missing: tuple[str, ...]  # photographs without a file, left out with their captions
    unreadable: tuple[str, ...]
    notebook: bool
    template: None = None
    intervals: str = f"95 %, bootstrap, {DRAWS:,} draws of photographs with all their queries, seed {SEED}"
    test: str = f"two-sided permutation, {SWAPS:,} swaps of photographs with all their queries, seed {SEED}"


@dataclass(frozen=True)
class ModelScores:
    """The scores of one model.

    Attributes:
        name: The model's name.
        fingerprint: The model's fingerprint.
        precision: The precision that it was loaded in.
        license: The model's license.
        scores: Direction and metric to score.
        differences: Direction and metric to the difference from the first model; None for the first model.
    """

    name: str
    fingerprint: str
    precision: str
    license: str
    scores: dict[str, dict[str, Estimate]]
    differences: dict[str, dict[str, Difference]] | None


@dataclass(frozen=True)
class Comparison:
    """The protocol, and the scores of all models."""

    protocol: Protocol
    models: tuple[ModelScores, ...]

    def to_json(self) -> dict[str, object]:
        """Return the fields."""
        return asdict(self)


@dataclass(frozen=True)
class _Embedded:
    facts: tuple[str, str, str, str]  # the first fields of ModelScores, instead of the model, which is large
    texts: Array
    images: Array
    readable: Array


def compare(
    models: Iterable[clipita.Model],
    captioned: Sequence[Captioned],
    folder: Path,
    cache: Path,
    *,
    captions_file: str,
    notebook: bool = False,
) -> Comparison:
    """Score every model on those photographs that exist and that all models can read.

    Args:
        models: At least one; taken one after another, and not kept.
        captioned: From `read_captions`.
        folder: Holds the photographs.
        cache: Keeps embeddings, by the model's fingerprint and each file's path, size and time of change.
        captions_file: Name of the captions in the protocol.
        notebook: Rank as CLIP-Italian's notebook did.

    Raises:
        FileNotFoundError: None of the photographs exists, or none can be read.
        ValueError: Two of them are the same file.
    """
    paths = locate(folder, [item.image for item in captioned])
    missing = tuple(item.image for item, path in zip(captioned, paths, strict=True) if path is None)
    there = [(item, path) for item, path in zip(captioned, paths, strict=True) if path is not None]
    if not there:
        raise FileNotFoundError(f"none of the {len(captioned)} photographs is in {folder}; the first is {missing[0]}")
    texts = [caption for item, _ in there for caption in item.captions]
    shown = np.repeat(np.arange(len(there)), [len(item.captions) for item, _ in there])

    embedded = [_embed(model, texts, [path for _, path in there], cache) for model in models]
    readable = np.all([one.readable for one in embedded], axis=0)
    if not readable.any():
        raise FileNotFoundError(f"none of the {len(there)} photographs in {folder} can be read")
    asked = readable[shown]
    place = np.cumsum(readable) - 1
    counts = np.bincount(place[shown[asked]])
    protocol = Protocol(
        captions_file,
        int(readable.sum()),
        int(asked.sum()),
        (int(counts.min()), int(counts.max())),
        missing,
        tuple(item.image for (item, _), good in zip(there, readable, strict=True) if not good),
        notebook,
    )
    ranked = [
        retrieve(one.texts[asked], one.images[readable], place[shown[asked]], notebook=notebook) for one in embedded
    ]
    results = zip(embedded, ranked, strict=True)
    return Comparison(
        protocol, tuple(_scores(one.facts, mine, ranked[0] if i else None) for i, (one, mine) in enumerate(results))
    )


def _scores(
    facts: tuple[str, str, str, str], ranked: dict[str, Ranked], first: dict[str, Ranked] | None
) -> ModelScores:
    scores = {direction: ranked[direction].scores() for direction in DIRECTIONS}
    if first is None:
        return ModelScores(*facts, scores, None)
    differences = {direction: ranked[direction].against(first[direction]) for direction in DIRECTIONS}
    return ModelScores(*facts, scores, differences)


def _embed(model: clipita.Model, texts: list[str], paths: list[Path], cache: Path) -> _Embedded:
    images, readable = embed_images(model, paths, cache)
    facts = (model.name, model.fingerprint, model.precision, model.license)
    return _Embedded(facts, embed_texts(model, texts, cache), images, readable)


def markdown(result: Comparison) -> str:
    """Return the protocol, a table for each direction, and the differences from the first model."""
    p = result.protocol
    few, most = p.captions_per_photograph
    names = _labels(result.models)
    lines = [
        f"# Retrieval: {p.captions_file}",
        "",
        f"- {p.photographs:,} photographs with {p.captions:,} captions, "
        f"{few if few == most else f'{few} to {most}'} a photograph; {_left_out(p)}.",
        f"- text -> image: {p.captions:,} captions, each among all {p.photographs:,} photographs.",
        f"- image -> text: {p.photographs:,} photographs, each among all {p.captions:,} captions; "
        "the best-placed of its own counts.",
        "- Captions are embedded as they stand, in no template.",
        f"- {_ranking(p.notebook)}",
        f"- Intervals, of differences too: {p.intervals}.",
        *([f"- p: {p.test}, not adjusted for the number of comparisons."] if len(names) > 1 else ()),
        *(
            f"- {name}: fingerprint {model.fingerprint}, {model.precision}, licence {model.license}."
            for name, model in zip(names, result.models, strict=True)
        ),
    ]
    for direction in DIRECTIONS:
        lines += ["", f"## {direction}", "", *_header()]
        for name, model in zip(names, result.models, strict=True):
            cells = [f"{s.value:.4f} [{s.low:.3f}, {s.high:.3f}]" for s in model.scores[direction].values()]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    for direction in DIRECTIONS if len(result.models) > 1 else ():
        lines += ["", f"## {direction}, compared with {names[0]}", "", *_header()]
        for name, model in zip(names[1:], result.models[1:], strict=True):
            assert model.differences is not None
            differences = model.differences[direction].values()
            cells = [f"{d.value:+.4f} [{d.low:+.3f}, {d.high:+.3f}], p {d.p:.4f}" for d in differences]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _header() -> list[str]:
    return [f"| model | {' | '.join(METRICS)} |", "|---" * (1 + len(METRICS)) + "|"]


def _labels(models: Sequence[ModelScores]) -> list[str]:
    names = [model.name for model in models]
    return [m.name if names.count(m.name) == 1 else f"{m.name} {m.fingerprint}" for m in models]


def _left_out(protocol: Protocol) -> str:
    parts = []
    for images, what in ((protocol.missing, "not there"), (protocol.unreadable, "unreadable")):
        listed = f" ({', '.join(images[:3])}{', ...' if len(images) > 3 else ''})" if images else ""
        parts.append(f"{len(images):,} {what}{listed}")
    return f"left out with their captions: {', '.join(parts)}"


def _ranking(notebook: bool) -> str:
    if notebook:
        return (
            "Ranked as the original notebook: texts divided by the norm of their batch of 1,024, ties as argsort "
            "leaves them. The texts' embeddings come from the model with unit norm."
        )
    return "A rival that ties with the right answer stands before it."

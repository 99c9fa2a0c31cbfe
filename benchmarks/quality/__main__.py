"""Measure every model on every set that is at hand, and write tables.json and tables.md.

    python -m benchmarks.quality --root ROOT

Where weights or photographs are missing, the table says why it is blank. ROOT holds clones as OWNER/NAME, and beside
them coco/val2014, xm3600, xtd and imagenet/val. Weights come from the hub's cache, or with --download from the hub.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from clipita_train.evaluate.comparison import compare
from clipita_train.evaluate.embedding_cache import cache_folder
from clipita_train.evaluate.label_sets import IMAGENET_IT, LabelSet, read_label_set
from clipita_train.evaluate.zero_shot import PHRASINGS, classify

import clipita
from benchmarks.quality import tables
from benchmarks.quality.sets import HERE, MODELS, ORIGINAL_LABELS, RETRIEVAL, ZERO_SHOT
from benchmarks.tools.measure import machine
from clipita.errors import ModelNotFoundError

Row = dict[str, Any]


def measure(root: Path, cache: Path, models: dict[str, str], *, download: bool) -> dict[str, list[Row]]:
    """Return a row for each set and model, by table: the scores, or the reason why there are none."""
    loaded: dict[str, clipita.Model | str] = {}
    for name, spec in models.items():
        try:
            loaded[name] = clipita.load(spec, local_files_only=not download)
        except ModelNotFoundError:
            loaded[name] = "no weights"
    retrieval: list[Row] = []
    zero_shot: list[Row] = []
    for name, model in loaded.items():
        retrieval += _retrieval(name, model, root, cache)
        zero_shot += _zero_shot(name, model, root, cache)
    order = [each.name for each in (*RETRIEVAL, *ZERO_SHOT)]
    return {
        "retrieval": sorted(retrieval, key=lambda row: order.index(row["set"])),
        "zero_shot": sorted(zero_shot, key=lambda row: order.index(row["set"])),
    }


def _retrieval(name: str, model: clipita.Model | str, root: Path, cache: Path) -> Iterator[Row]:
    for captions in RETRIEVAL:
        row: Row = {"set": captions.name, "note": captions.note, "model": name}
        try:
            captioned, folder = captions.read(root)
        except FileNotFoundError as error:
            yield row | {"missing": str(error)}
            continue
        if isinstance(model, str):
            yield row | {"missing": model}
            continue
        result = compare([model], captioned, folder, cache, captions_file=captions.name)
        protocol = result.protocol
        yield row | {
            "fingerprint": model.fingerprint,
            "photographs": protocol.photographs,
            "captions": protocol.captions,
            "left_out": len(protocol.missing) + len(protocol.unreadable),
            "scores": asdict(result.models[0])["scores"],
        }


def _zero_shot(name: str, model: clipita.Model | str, root: Path, cache: Path) -> Iterator[Row]:
    label_sets = _label_sets(root)
    for classes in ZERO_SHOT:
        for label_name, labels in label_sets.items():
            row: Row = {"set": classes.name, "note": classes.note, "model": name, "labels": label_name}
            try:
                if labels is None:
                    raise FileNotFoundError(f"no {ORIGINAL_LABELS}")
                photographs = classes.read(root, labels)
            except FileNotFoundError as error:
                yield row | {"missing": str(error)}
                continue
            if isinstance(model, str):
                yield row | {"missing": model}
                continue
            phrasings = [PHRASINGS[phrasing] for phrasing in ("bare", "article", "model")]
            report = classify([model], photographs, [labels], phrasings, cache)
            yield row | {
                "fingerprint": model.fingerprint,
                "photographs": report.photographs,
                "classes": report.classes_shown,
                "left_out": len(report.unreadable) + sum(report.strangers.values()),
                "scores": {
                    found.phrasing: {metric: vars(estimate) for metric, estimate in found.accuracy.items()}
                    for found in report.rows
                },
            }


def _label_sets(root: Path) -> dict[str, LabelSet | None]:
    original = root / ORIGINAL_LABELS
    return {
        "the original's": read_label_set(str(original)) if original.is_file() else None,
        IMAGENET_IT: read_label_set(IMAGENET_IT),
    }


@click.command(help=__doc__)
@click.option("--root", type=click.Path(path_type=Path, file_okay=False, exists=True), required=True)
@click.option("--cache", type=click.Path(path_type=Path, file_okay=False), help="Keep embeddings here.")
@click.option("--download", is_flag=True, help="Fetch weights that are not in the hub's cache.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=HERE, help="Where the tables go.")
def main(root: Path, cache: Path | None, download: bool, out: Path) -> None:
    """Measure what is at hand, and write the tables."""
    before = machine()
    with cache_folder(cache) as kept:
        report: dict[str, Any] = {"machine": before} | measure(root, kept, MODELS, download=download)
    out.mkdir(parents=True, exist_ok=True)
    (out / "tables.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
    text = tables.markdown(report)
    (out / "tables.md").write_text(text, "utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()

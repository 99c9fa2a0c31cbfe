"""Write the report of benchmarks.quality as Markdown: published scores, measured scores, and reasons for blanks."""

from collections.abc import Iterator
from typing import Any

from benchmarks.quality.published import PROTOCOLS, PUBLISHED
from benchmarks.quality.sets import TRAINED_ON
from benchmarks.tools.measure import describe_machine

Report = dict[str, Any]
Row = dict[str, Any]

_TO_IMAGE = ("MRR@1", "MRR@5", "MRR@10", "Recall@1", "Recall@5", "Recall@10")
_ACC = ("Acc@1", "Acc@5", "Acc@10", "Acc@100")
_ALWAYS = ("clipita-mini", "CLIP-Italian", "mCLIP")  # models that have a row in every set, even a blank one


def markdown(report: Report) -> str:
    """Return both tables, each followed by notes on its sets and models."""
    return "\n".join([
        "# Retrieval",
        "",
        "Captions as they stand, in no template: each among all photographs of its set (text -> image), and each",
        "photograph among all captions (image -> text). A rival that ties stands before the right answer.",
        "Intervals are in the JSON.",
        "",
        f"| set | model | | {' | '.join(_TO_IMAGE)} | image -> text MRR@10 |",
        "|---" * (4 + len(_TO_IMAGE)) + "|",
        *_retrieval(report["retrieval"]),
        "",
        *_notes(report["retrieval"]),
        "",
        "# ImageNet's classes by Italian labels",
        "",
        "All 1,000 labels are asked for: the word alone (bare), with its article (article), or in the model's own",
        "templates (model). A label that ties stands before the right one. Intervals are in the JSON.",
        "",
        f"| set | model | labels | phrasing | | {' | '.join(_ACC)} |",
        "|---" * (5 + len(_ACC)) + "|",
        *_zero_shot(report["zero_shot"]),
        "",
        *_notes(report["zero_shot"]),
        "",
        describe_machine(report),
        "",
    ])  # fmt: skip


def _retrieval(rows: list[Row]) -> Iterator[str]:
    for row in rows:
        start = f"| {row['set']} | {row['model']} |"
        for p in PUBLISHED:
            if (p.set, p.model) == (row["set"], row["model"]):
                yield f"{start} published, {p.source} | {_cells(p.figures, _TO_IMAGE)} |  |"
        if "scores" in row:
            found = {metric: estimate["value"] for metric, estimate in row["scores"]["text -> image"].items()}
            size = f"measured, {row['captions']:,} captions of {row['photographs']:,} photographs"
            back = row["scores"]["image -> text"]["MRR@10"]["value"]
            yield f"{start} {size} | {_cells(found, _TO_IMAGE)} | {back:.4f} |"
        elif row["model"] in _ALWAYS:
            yield f"{start} not measured: {row['missing']} | {_cells({}, _TO_IMAGE)} |  |"


def _zero_shot(rows: list[Row]) -> Iterator[str]:
    for row in rows:
        start = f"| {row['set']} | {row['model']} | {row['labels']} |"
        for phrasing, scores in row.get("scores", {}).items():
            found = {metric: estimate["value"] for metric, estimate in scores.items()}
            yield f"{start} {phrasing} | measured, {row['photographs']:,} photographs | {_cells(found, _ACC)} |"
        if "scores" not in row and row["model"] in _ALWAYS:
            yield f"{start}  | not measured: {row['missing']} | {_cells({}, _ACC)} |"
    for p in PUBLISHED:
        if set(p.figures) <= set(_ACC):
            labels = p.protocol or "the original's"
            yield f"| {p.set} | {p.model} | {labels} |  | published, {p.source} | {_cells(p.figures, _ACC)} |"


def _notes(rows: list[Row]) -> list[str]:
    """Return notes: what each set is, what a measured model had seen of it, and which models could not be measured."""
    sets = {row["set"]: row["note"] for row in rows if row["note"]}
    seen = dict.fromkeys((row["set"], row["model"]) for row in rows if "scores" in row)
    blank = dict.fromkeys(row["model"] for row in rows if row["model"] not in _ALWAYS and "scores" not in row)
    return [
        *(f"- {name}: {note}." for name, note in sets.items()),
        *(
            f"- {name}, as published: {PROTOCOLS[name]}."
            for name in dict.fromkeys(row["set"] for row in rows)
            if name in PROTOCOLS
        ),
        *(f"- {model} on {name}: {TRAINED_ON[model, name]}." for name, model in seen if (model, name) in TRAINED_ON),
        *([f"- No weights or photographs were to be had of: {', '.join(blank)}."] if blank else ()),
    ]


def _cells(found: dict[str, float], metrics: tuple[str, ...]) -> str:
    return " | ".join(f"{found[metric]:.4f}" if metric in found else "" for metric in metrics)

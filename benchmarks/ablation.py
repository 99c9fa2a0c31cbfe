"""Measure the effect of CLIP-Italian's choices.

    python -m benchmarks.ablation --root PHOTOGRAPHS --work WORK --runs RUNS

Each run adds one choice to those of the run before it. All runs have the same towers, pairs and number of steps, and
each is made with three seeds. The recipe is clip_small, made smaller still, on the photographs that `clipita-train
prepare mini` listed. The learning rate of each optimizer is chosen first, with a seed of its own. RUNS keeps the score
of every finished run, so that the command can be interrupted and started again. It takes about an hour and a half on
two CPU cores, and needs the `train` extra, the packages of clip_small's towers and matplotlib.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import plot
from benchmarks.tools.measure import Figures, publish, result_file

DEVICES, SEEDS, TUNING_SEED = 8, (0, 1, 2), 9
BATCH = 64
EACH, VALIDATES = 4, 1  # photographs of a concept for training, and for validation
STEPS, FROZEN = 240, 80  # of a whole run, and of its frozen stage if it has one
RATES = {"adamw": (1e-3, 3e-3, 1e-2), "adabelief": (3e-4, 1e-3, 3e-3)}
JUDGED = {"tiny_imagenet": 2000, "caltech101": 2714}  # photographs taken from each development set, evenly spaced

SMALLER = ("image.size=64", "image.margin=8", "text.layers=4", "text.max_tokens=12", "text.lengths=")
PER_DEVICE = ("kind=per_device", f"device_batch={BATCH // DEVICES}")
ADAMW = ("kind=adamw", "eps=1e-8", "clipping=0", "decay=linear")
TOWERS_ALONE = ("only=towers", f"train.stages.1.steps={STEPS}")
FROZEN_FIRST = (f"train.stages.0.steps={FROZEN}", f"train.stages.1.steps={STEPS - FROZEN}")
# Name: optimizer, loss, stages, augmentation; each differs from the one before it in one of these.
VARIANTS: dict[str, tuple[str, Sequence[str], Sequence[str], str]] = {
    "AdamW": ("adamw", (*PER_DEVICE, "learned=true"), TOWERS_ALONE, "none"),
    "+ AdaBelief, clipping, cosine": ("adabelief", (*PER_DEVICE, "learned=true"), TOWERS_ALONE, "none"),
    "+ scale fixed at 20": ("adabelief", PER_DEVICE, TOWERS_ALONE, "none"),
    "+ frozen stage": ("adabelief", PER_DEVICE, FROZEN_FIRST, "none"),
    "+ global loss": ("adabelief", ("kind=softmax",), FROZEN_FIRST, "none"),
    "+ augmentation, light": ("adabelief", ("kind=softmax",), FROZEN_FIRST, "light"),
}
Score = dict[str, float]


def settings(name: str, rate: float, seed: int, folder: Path) -> list[str]:
    """Return the `--set` values with which a run departs from clip_small."""
    optimizer, loss, stages, augmentation = VARIANTS[name]
    changed = [f"loss.{one}" for one in loss] + [*stages, f"augmentation={augmentation}", f"train.seed={seed}"]
    for stage in (0, 1):
        changed += [f"train.stages.{stage}.learning_rate={rate}", f"train.stages.{stage}.eval_every=100"]
        changed += [f"train.stages.{stage}.optimizer.{one}" for one in (ADAMW if optimizer == "adamw" else ())]
    lists = (
        f"data.sources.0.path={folder / 'train.jsonl'}",
        f"data.sources.0.validation={folder / 'validation.jsonl'}",
    )
    return [*SMALLER, *changed, *lists, f"features={folder / 'features'}"]


def measure(root: Path, work: Path, runs: Path) -> Figures:
    """Choose the learning rates, make all runs that are missing, and return their scores."""
    write_pairs(work, runs)
    run = _Runs(root, work, runs)
    first = {optimizer: next(n for n, v in VARIANTS.items() if v[0] == optimizer) for optimizer in RATES}
    tuning = {
        kind: {rate: run(first[kind], rate, TUNING_SEED)["loss"] for rate in rates} for kind, rates in RATES.items()
    }
    best = {kind: min(losses, key=lambda rate: losses[rate]) for kind, losses in tuning.items()}
    scores = {name: [run(name, best[VARIANTS[name][0]], seed) for seed in SEEDS] for name in VARIANTS}
    return {
        "devices": DEVICES,
        "steps": STEPS,
        "frozen": FROZEN,
        "pairs": {part: len((runs / f"{part}.jsonl").read_text().splitlines()) for part in ("train", "validation")},
        "tuning": {kind: {f"{rate:g}": loss for rate, loss in losses.items()} for kind, losses in tuning.items()},
        "scores": scores,
    }


def write_pairs(work: Path, runs: Path) -> None:
    """Write train.jsonl and validation.jsonl: photographs of the manifest's training split with Italian captions."""
    from clipita_train.data.photographs.labeled_pairs import labeled_pairs
    from clipita_train.data.photographs.manifest import read_manifest

    examples = [e for e in read_manifest(work / "manifest.jsonl") if e.concept is not None]
    seen, parts = Counter[Any](), dict[str, list[str]](train=[], validation=[])
    by_path = {e.path: e.concept for e in examples}
    for pair in labeled_pairs(examples, each=EACH + VALIDATES):
        concept = by_path[str(pair["image_path"])]
        seen[concept] += 1
        parts["validation" if seen[concept] <= VALIDATES else "train"].append(json.dumps(pair, ensure_ascii=False))
    runs.mkdir(parents=True, exist_ok=True)
    for part, lines in parts.items():
        (runs / f"{part}.jsonl").write_text("".join(f"{line}\n" for line in lines))


class _Runs:
    """Train, export and judge by the public commands and library; finished runs are not made again."""

    def __init__(self, root: Path, work: Path, runs: Path) -> None:
        from clipita_train.data.concepts import load_ontology
        from clipita_train.data.photographs.manifest import read_manifest

        self._root, self._runs, self._ontology = root, runs, load_ontology()
        judged = [e for e in read_manifest(work / "manifest.jsonl") if e.split == "dev"]
        self._examples = [e for source, count in JUDGED.items() for e in _spaced(judged, source, count)]

    def __call__(self, name: str, rate: float, seed: int) -> Score:
        folder = self._runs / f"{list(VARIANTS).index(name)}-{rate:g}-{seed}"
        done = folder / "score.json"
        if not done.is_file():
            changed = [part for one in settings(name, rate, seed, self._runs) for part in ("--set", one)]
            changed += ["--set", f"data.root={self._root}", "--set", "data.sources.0.images=."]
            self._command("run", "clip_small", "--out", folder / "run", "--resume", *changed)
            bundle = folder / "bundle"
            self._command("export", "clip_small", "--run", folder / "run", "--out", bundle, "--revision", "1", *changed)
            done.write_text(json.dumps(self._judged(bundle)))
            shutil.copy(folder / "run" / "metrics.jsonl", folder)
            for used in ("run", "bundle"):
                shutil.rmtree(folder / used)
        return json.loads(done.read_text())

    def _command(self, *words: object) -> None:
        kept = {"JAX_COMPILATION_CACHE_DIR": str(self._runs / "compiled")}
        command = [Path(sys.executable).with_name("clipita-train"), *map(str, words)]
        subprocess.run(command, check=True, env=os.environ | kept)

    def _judged(self, bundle: Path) -> Score:
        from clipita_train.evaluate.development import evaluate

        import clipita

        model = clipita.load(bundle)
        found = {s.task: s for s in evaluate(model, self._examples, self._root, self._ontology)}
        lines = [json.loads(line) for line in (self._runs / "validation.jsonl").read_text().splitlines()]
        images = model.encode_image([self._root / line["image_path"] for line in lines])
        texts = model.encode_text([line["captions"][0] for line in lines])
        loss = pooled_loss(images, texts, model.logit_scale)
        return {"loss": loss, **{source: found[source].top1 for source in JUDGED}}


def _spaced(examples: Iterable[Any], source: str, count: int) -> list[Any]:
    mine = [e for e in examples if e.source == source]
    return [mine[place] for place in np.linspace(0, len(mine) - 1, min(count, len(mine))).astype(int)]


def pooled_loss(images: np.ndarray, texts: np.ndarray, scale: float) -> float:
    """Return the mean contrastive loss of pairs (N, E) in random pools of `BATCH`.

    Pairs that do not fill a pool are left out.
    """
    order = np.random.default_rng(0).permutation(len(images))
    losses = []
    for start in range(0, len(order) - BATCH + 1, BATCH):
        rows = order[start : start + BATCH]
        logits = scale * images[rows] @ texts[rows].T
        losses += [np.logaddexp.reduce(side, axis=1) - np.diag(side) for side in (logits, logits.T)]
    return float(np.mean(losses))


def markdown(report: Figures) -> str:
    """Return the table of scores as Markdown."""
    lines = [
        "# The effect of CLIP-Italian's choices, in miniature",
        "",
        "EfficientNet-lite0 at 64 pixels and the first 4 layers of multilingual-e5-small, "
        f"{report['pairs']['train']:,} photographs with Italian captions, {report['steps']} steps of {BATCH} pairs, "
        f"{len(SEEDS)} seeds: mean (lowest to highest). Each line adds to the one before it. Before the global loss a "
        f"pair was told apart among the {BATCH // report['devices']} of one of {report['devices']} devices. The "
        f"validation loss is of all pairs of a pool of {BATCH}, {report['pairs']['validation']:,} photographs in all; "
        f"top-1 is of {JUDGED['tiny_imagenet']:,} photographs among 200 labels and of {JUDGED['caltech101']:,} among "
        "100, none of which training has.",
        "",
        f"| | {' | '.join(plot.ABLATION_COLUMNS.values())} |",
        "|---|---|---|---|",
    ]
    for name, scores in report["scores"].items():
        cells = [_cell(key, [score[key] for score in scores]) for key in plot.ABLATION_COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    rates = [
        f"{kind} {', '.join(f'{rate}: {loss:.3f}' for rate, loss in losses.items())}"
        for kind, losses in report["tuning"].items()
    ]
    lines += ["", f"Learning rates tried with a fourth seed, and their validation loss: {'; '.join(rates)}."]
    return "\n".join(lines)


def _cell(key: str, values: list[float]) -> str:
    mean, low, high = statistics.mean(values), min(values), max(values)
    if key == "loss":
        return f"{mean:.3f} ({low:.3f} to {high:.3f})"
    return f"{mean:.1%} ({low:.1%} to {high:.1%})"


Folder = click.Path(path_type=Path, file_okay=False)


@click.command(help=__doc__)
@click.option("--root", type=Folder, required=True)
@click.option("--work", type=Folder, required=True)
@click.option("--runs", type=Folder, required=True)
def main(root: Path, work: Path, runs: Path) -> None:
    """Run the whole comparison."""
    publish("ablation", lambda: measure(root.absolute(), work, runs.absolute()), markdown)
    plot.ablation(json.loads(result_file("ablation", "json").read_text()), result_file("ablation", "svg"))


if __name__ == "__main__":
    main()

"""Training steps: python -m benchmarks.training

Towers of CLIP-Italian's size (ViT-B/32 and BERT-base, random weights) on photographs of 500 x 375 pixels with captions
of 16 tokens: the input pipeline alone, the step alone, both together, and a plain PyTorch step of transformers' own
model on the same batch, with AdamW for both. Takes some 10 GB of memory and the `test` extra, and Linux.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._measure import THREADS, Report, interleaved, publish
from benchmarks._photographs import jpegs
from benchmarks.convert import full_size_checkpoint

BATCH, STEPS, ROUNDS, TOKENS = 16, 4, 5, 16
CAPTION = "una foto di un cane " * 8  # cut to `TOKENS`
TARGETS = {"together": 0.9, "against PyTorch": 1.0}


def measure() -> Report:
    with full_size_checkpoint() as full, tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "photographs").mkdir()
        for number, content in enumerate(jpegs(500, 375, 4 * BATCH)):
            (folder / "photographs" / f"{number}.jpg").write_bytes(content)
        lines = [json.dumps({"image_path": f"{n}.jpg", "captions": [CAPTION]}) + "\n" for n in range(4 * BATCH)]
        (folder / "pairs.jsonl").write_text("".join(lines))
        cases, batch = _ours(full, folder)
        cases["PyTorch"] = _peer(full, batch)
        found = interleaved(cases, ROUNDS)
    rates = {name: BATCH * STEPS / seconds["median"] for name, seconds in found.items()}
    slower = min(rates["pipeline"], rates["step"])
    return {
        "batch": BATCH,
        "steps": STEPS,
        "rounds": ROUNDS,
        "tokens": TOKENS,
        "targets": TARGETS,
        "seconds": found,
        "images_per_second": rates,
        "together": rates["together"] / slower,
        "against PyTorch": rates["step"] / rates["PyTorch"],
    }


def _ours(full: Path, folder: Path) -> tuple[dict[str, Callable[[], object]], dict[str, Any]]:
    """What is measured of ours, and a batch."""
    import jax

    from training.config import OptimizerConfig, ParameterRule, StageConfig, TrainConfig
    from training.mesh import make_mesh, parameter_shardings, place, replicated
    from training.optimizer import build_optimizer
    from training.pair_model import pair_loss
    from training.pair_recipe import DataConfig, ImageBackbone, PairRecipe, PairSource, TextBackbone
    from training.pair_run import PairRun
    from training.state import create_state, split_model
    from training.step import make_train_step, put_batch, take_ids

    adamw = OptimizerConfig("adamw", clipping=0.0, eps=1e-8)
    stage = StageConfig("all", (ParameterRule(".*"),), 1e-5, BATCH, steps=10_000, optimizer=adamw)
    sources = (PairSource("photographs", "pairs.jsonl", images="photographs"),)
    recipe = PairRecipe(
        "benchmark",
        "",
        DataConfig(sources, root=str(folder), validation_share=0.0, threads=THREADS),
        ImageBackbone(str(full)),
        TextBackbone(str(full), max_tokens=TOKENS),
        TrainConfig((stage,)),
    )
    run = PairRun(recipe, folder / "out")
    mesh = make_mesh(recipe.train.mesh)
    graphdef, params, rest = split_model(run.model)
    params, rest = place((params, rest), (parameter_shardings(recipe.train.mesh, params, mesh), replicated(mesh)))
    optimizer = build_optimizer(stage, params, total_steps=10_000)
    held = [create_state(params, rest, optimizer, stage=0, seed=0, sharding=replicated(mesh))]
    train_step = make_train_step(graphdef, pair_loss(recipe, 224), optimizer, like=held[0])

    def step(batch: Any) -> None:
        held[0], _ = train_step(held[0], put_batch(batch, mesh))

    def batches() -> Any:
        made = run.make_batches(stage, "train")
        return (take_ids(next(made))[0] for _ in range(STEPS))

    batch = next(batches())

    def steps(given: Callable[[], Any]) -> Callable[[], object]:
        def all_of_them() -> None:
            for taken in given():
                step(taken)
            jax.block_until_ready(held[0].step)

        return all_of_them

    cases: dict[str, Callable[[], object]] = {
        "pipeline": lambda: list(batches()),
        "step": steps(lambda: [batch] * STEPS),
        "together": steps(batches),
    }
    return cases, batch


def _peer(full: Path, batch: dict[str, Any]) -> Callable[[], object]:
    """The same steps of transformers' own model in PyTorch."""
    import torch
    import transformers

    torch.set_num_threads(THREADS)
    model: Any = transformers.VisionTextDualEncoderModel.from_pretrained(full).train()
    model.logit_scale.requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.0)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    ids, mask = (torch.from_numpy(batch[name].astype(np.int64)) for name in ("input_ids", "attention_mask"))
    pixels = torch.from_numpy(batch["pixels"]).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in ((122.77, 116.75, 104.09), (68.5, 66.63, 70.32)))

    def steps() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            values = (pixels.float() - mean) / std
            model(input_ids=ids, attention_mask=mask, pixel_values=values, return_loss=True).loss.backward()
            optimizer.step()

    return steps


def markdown(report: Report) -> str:
    rates, seconds = report["images_per_second"], report["seconds"]
    names = {
        "pipeline": "input pipeline alone",
        "step": "training step alone",
        "together": "both together",
        "PyTorch": "training step of transformers' model in PyTorch",
    }
    lines = [
        "# Training steps",
        "",
        f"ViT-B/32 and BERT-base, both trained, float32, AdamW; batches of {report['batch']} photographs of 500 x 375 "
        f"pixels with {report['tokens']} tokens. Pairs a second, median (quartiles) of {report['rounds']} rounds of "
        f"{report['steps']} steps, interleaved.",
        "",
        "| | pairs/s |",
        "|---|---|",
    ]
    pairs = report["batch"] * report["steps"]
    for key, name in names.items():
        low, high = pairs / seconds[key]["high"], pairs / seconds[key]["low"]
        lines.append(f"| {name} | {rates[key]:.1f} ({low:.1f} to {high:.1f}) |")
    targets = report["targets"]
    lines += [
        "",
        f"Together they are at {100 * report['together']:.0f} % of the slower of the two (target "
        f"{100 * targets['together']:.0f} %); the step alone at {report['against PyTorch']:.2f} times PyTorch's "
        f"(target {targets['against PyTorch']:.1f}).",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    publish("training", measure, markdown)

"""Measure training steps.

    python -m benchmarks.training

The towers have CLIP-Italian's size (ViT-B/32 and BERT-base, random weights); photographs have 500 x 375 pixels, and
captions 16 tokens. Timed are the input pipeline alone, the training step alone, and both together; and on the same
batch a plain PyTorch step of transformers' model, and open_clip's own loop over its towers. All use AdamW. Takes some
12 GB of memory, the `test` extra, open_clip_torch and timm, and Linux.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.convert import full_size_checkpoint
from benchmarks.tools.measure import THREADS, Figures, interleaved, publish
from benchmarks.tools.photographs import jpegs

BATCH, STEPS, ROUNDS, TOKENS = 16, 4, 5, 16
CAPTION = "una foto di un cane " * 8  # cut to `TOKENS`
TARGETS = {"together": 0.9, "against PyTorch": 1.0, "against open_clip": 1.0}


def measure() -> Figures:
    """Time all cases, interleaved."""
    with full_size_checkpoint() as full, tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "photographs").mkdir()
        for number, content in enumerate(jpegs(500, 375, 4 * BATCH)):
            (folder / "photographs" / f"{number}.jpg").write_bytes(content)
        lines = [json.dumps({"image_path": f"{n}.jpg", "captions": [CAPTION]}) + "\n" for n in range(4 * BATCH)]
        (folder / "pairs.jsonl").write_text("".join(lines))
        cases, batch = _ours(full, folder)
        cases["PyTorch"], cases["open_clip"] = _peer(full, batch), _open_clip(full, batch)
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
        "against open_clip": rates["step"] / rates["open_clip"],
    }


def _ours(full: Path, folder: Path) -> tuple[dict[str, Callable[[], object]], dict[str, Any]]:
    """Return the cases of clipita_train, and a batch for the peers."""
    import jax
    from clipita_train.engine.config import OptimizerConfig, ParameterRule, StageConfig, TrainConfig
    from clipita_train.engine.mesh import make_mesh, parameter_shardings, place, replicated
    from clipita_train.engine.optimizer import build_optimizer
    from clipita_train.engine.state import create_state, split_model
    from clipita_train.engine.step import make_train_step, put_batch, take_ids
    from clipita_train.pairs.model import pair_loss
    from clipita_train.pairs.recipe import DataConfig, ImageBackbone, PairRecipe, PairSource, TextBackbone
    from clipita_train.pairs.run import PairRun

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
    """Return the same steps of transformers' model in PyTorch."""
    import torch
    import transformers

    torch.set_num_threads(THREADS)
    model: Any = transformers.VisionTextDualEncoderModel.from_pretrained(full).train()
    model.logit_scale.requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.0)
    _without_dropout(model)
    ids, mask = (torch.from_numpy(batch[name].astype(np.int64)) for name in ("input_ids", "attention_mask"))
    pixels = torch.from_numpy(batch["pixels"])

    def steps() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            model(input_ids=ids, attention_mask=mask, pixel_values=_values(pixels), return_loss=True).loss.backward()
            optimizer.step()

    return steps


def _open_clip(full: Path, batch: dict[str, Any]) -> Callable[[], object]:
    """Return the same steps in open_clip's own loop: its ViT-B/32 with a BERT of the same size, all of it trained."""
    import torch

    from tests.support.oracles import open_clip_module

    library = open_clip_module()
    from open_clip_train.train import train_one_epoch

    vision = {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32}
    text: dict[str, Any] = {"hf_model_name": str(_bert_config(full)), "hf_model_pretrained": False}
    text |= {"hf_pooler_type": "cls_pooler", "hf_proj_type": "linear"}
    model: Any = library.CustomTextCLIP(512, vision, text, quick_gelu=True, output_dict=True)
    _without_dropout(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.0)
    options = SimpleNamespace(
        device="cpu", precision="fp32", distill=False, accum_freq=1, skip_scheduler=True, grad_clip_norm=None,
        horovod=False, log_every_n_steps=10_000, rank=0, local_rank=0, world_size=1, batch_size=BATCH, wandb=False,
        distributed=False,
    )  # fmt: skip
    ids, pixels = torch.from_numpy(batch["input_ids"].astype(np.int64)), torch.from_numpy(batch["pixels"])

    class Loader(list):  # the attributes that open_clip's loop reads
        num_batches, num_samples = STEPS, STEPS * BATCH

        def __iter__(self) -> Any:
            return ((_values(pixels), ids) for _ in range(STEPS))

    data = {"train": SimpleNamespace(dataloader=Loader(), set_epoch=lambda _: None)}
    loss = library.ClipLoss()
    return lambda: train_one_epoch(model, data, loss, 0, optimizer, None, None, None, options)


def _without_dropout(model: Any) -> None:
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def _bert_config(full: Path) -> Path:
    """Return a folder with the text tower's configuration alone, as open_clip reads one from the hub."""
    folder = full / "text-tower"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(json.loads((full / "config.json").read_text())["text_config"]))
    return folder


def _values(pixels: Any) -> Any:
    """Normalize pixels: (B, H, W, 3) uint8 to (B, 3, H, W) float32."""
    import torch

    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in ((122.77, 116.75, 104.09), (68.5, 66.63, 70.32)))
    return (pixels.permute(0, 3, 1, 2).float() - mean) / std


def markdown(report: Figures) -> str:
    """Return the table of pairs a second as Markdown."""
    rates, seconds = report["images_per_second"], report["seconds"]
    names = {
        "pipeline": "input pipeline alone",
        "step": "training step alone",
        "together": "both together",
        "PyTorch": "training step of transformers' model in PyTorch",
        "open_clip": "training step in open_clip's loop",
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
        f"(target {targets['against PyTorch']:.1f}) and {report['against open_clip']:.2f} times open_clip's "
        f"(target {targets['against open_clip']:.1f}).",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    publish("training", measure, markdown)

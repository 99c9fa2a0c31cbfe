"""A recipe of seconds for whole towers: a tiny ViT and a tiny BERT with random weights, files of photographs, captions.

`write_toy` makes a folder with all of it and "recipe.py", which `clipita-train run` takes.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from clipita_train.engine.config import LossConfig, ParameterRule, StageConfig, TrainConfig
from clipita_train.pairs.recipe import DataConfig, ImageBackbone, PairRecipe, PairSource, TextBackbone
from PIL import Image

from clipita.convert.export import Provenance, write_dual_bundle
from clipita.images.pixels import Preprocessing
from clipita.text.tokenizer import TokenizerConfig
from clipita.towers.config import BertConfig, DualConfig, VitConfig
from support.tiny import tiny_table, tiny_tokenizer

CONFIG = DualConfig(
    image=VitConfig(
        patch=8,
        width=32,
        layers=1,
        heads=2,
        mlp_width=64,
        activation="quick_gelu",
        epsilon=1e-5,
        patch_bias=False,
        class_token=True,
        embedding_norm=True,
        pooling="cls",
    ),
    text=BertConfig(64, width=32, layers=1, heads=2, mlp_width=64, positions=24, pooling="pooler"),
    preprocessing=Preprocessing(24, "shortest", "bicubic", (127.5,) * 3, (127.5,) * 3),
    embed_dim=16,
)
HEADS = (ParameterRule("(image|text)/.*", 0.0), ParameterRule("(image|text)_projection/.*|loss/.*"))
ALL = (ParameterRule(".*"),)
PAIRS = 64
SHORT = (StageConfig("all", ALL, learning_rate=3e-3, batch_size=16, steps=4, eval_every=2),)


def write_toy(folder: Path, count: int = PAIRS) -> Path:
    """Writes "backbone", "photographs", "pairs.jsonl" and "recipe.py"; returns the folder."""
    (folder / "photographs").mkdir(parents=True)
    random = np.random.default_rng(0)
    lines = []
    for number in range(count):
        blocks = random.integers(0, 256, (3, 3, 3), dtype=np.uint8)
        Image.fromarray(np.kron(blocks, np.ones((10, 12, 1), np.uint8))).save(folder / "photographs" / f"{number}.png")
        letters = "".join(random.choice(list("abcdefghilmnopqrstuvz"), 5))
        lines.append({"image_path": f"{number}.png", "captions": [f"un {letters}", f"una {letters}, a sinistra"]})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    write_backbone(folder / "backbone")
    (folder / "recipe.py").write_text(
        "from pathlib import Path\n\nfrom support.pair_toy import toy_recipe\n\n"
        "RECIPE = toy_recipe(Path(__file__).parent)\n"
    )
    return folder


def write_backbone(folder: Path, config: DualConfig = CONFIG) -> None:
    tokenizer_file = folder.with_name("tokenizer.json")
    tokenizer_file.write_text(tiny_tokenizer(), encoding="utf-8")
    tokenizer = TokenizerConfig(24, nfc=False, straight_apostrophes=False, accent_apostrophes=False)
    write_dual_bundle(
        folder,
        tiny_table(config),
        config,
        provenance=Provenance("toy", "Apache-2.0", "random numbers", "0"),
        tokenizer=tokenizer,
        tokenizer_file=tokenizer_file,
        logit_scale=20.0,
    )


def toy_recipe(folder: Path, **changes) -> PairRecipe:
    stages = (
        StageConfig("heads", HEADS, learning_rate=3e-3, batch_size=16, steps=6, eval_every=3),
        StageConfig("all", ALL, learning_rate=3e-3, batch_size=16, epochs=3, eval_every=5),
    )
    train = TrainConfig(stages=changes.pop("stages", stages), log_every=1, save_every=changes.pop("save_every", None))
    source = replace(PairSource("toy", "pairs.jsonl", images="photographs"), **changes.pop("source", {}))
    data = replace(DataConfig((source,), root=str(folder), validation_share=0.2), **changes.pop("data", {}))
    backbone = str(folder / "backbone")
    recipe = PairRecipe(
        "toy",
        "Apache-2.0",
        data,
        ImageBackbone(backbone, margin=4),
        TextBackbone(backbone),
        embed_dim=CONFIG.embed_dim,
        train=train,
    )
    return replace(recipe, **changes)


def with_dropout(recipe: PairRecipe) -> PairRecipe:
    return replace(recipe, text=replace(recipe.text, dropout=0.2))


def device_recipe(toy: Path, kind: str) -> PairRecipe:
    loss = LossConfig(kind, learned=True, logit_bias=-5.0 if kind == "sigmoid" else 0.0)
    return with_dropout(toy_recipe(toy, stages=SHORT, loss=loss, augmentation="light"))

"""CLIP-Italian as it was published: BERT and CLIP's ViT, first their projections alone, then all of it.

clipita-train run clip_italian --out DIR --set data.root=PAIRS

PAIRS holds a list of pairs for each source, {"image_path": ..., "captions": [...]} a line, and its folder of
photographs: wit.jsonl and wit/, mscoco_it.jsonl and mscoco/, conceptual.jsonl and conceptual/, ilpost.jsonl and
ilpost/; about 1.4 million pairs in all. Other names and formats can be set: --set data.sources.0.format=shards.

What it repeats of the original (clip-italian/clip-italian; arXiv:2108.08688): the towers, 96 tokens, projections to
512, a fixed scale of 20, AGC and AdaBelief with warm-up over a tenth of the steps and a cosine to 0, 1e-5, 15 epochs,
its augmentation as coded, 5 % of every source for validation, the best validation loss; and a loss that tells apart
the 128 pairs of one of its eight devices, on up to eight of yours.

What it does not: the photographs that augmentation crops from are the middle square with a margin of 32 pixels, where
the original slid its window along the longer side; BERT's dropout of 0.1 is left out; captions in validation are the
first, and all of validation counts. The write-up does not say when its first stage had converged: here it is over when
three evaluations have brought nothing.

Expected (published): MSCOCO-IT text to image MRR@1 0.3797, ImageNet in Italian 22.11 % top-1. Not run to its end here:
the backbones and the data were not at hand.
"""

from training.config import LossConfig, OptimizerConfig, ParameterRule, StageConfig, TrainConfig
from training.pair_recipe import DataConfig, ImageBackbone, PairRecipe, PairSource, TextBackbone

SOURCES = (
    PairSource("wit", "wit.jsonl", images="wit"),
    PairSource("mscoco_it", "mscoco_it.jsonl", images="mscoco"),
    PairSource("conceptual", "conceptual.jsonl", images="conceptual"),
    PairSource("ilpost", "ilpost.jsonl", images="ilpost"),
)
LOCKED = ParameterRule("(image|text)/.*", 0.0)
HEADS = ParameterRule("(image|text)_projection/.*|loss/.*")
DEVICE_BATCH = 128
BATCH = 8 * DEVICE_BATCH

RECIPE = PairRecipe(
    name="clip-italian",
    licence="GPL-3.0",  # of the published weights
    data=DataConfig(SOURCES, threads=8),
    image=ImageBackbone("openai/clip-vit-base-patch32"),
    text=TextBackbone("dbmdz/bert-base-italian-xxl-uncased", pooling="pooler", max_tokens=96),
    embed_dim=512,
    loss=LossConfig("per_device", logit_scale=20.0, device_batch=DEVICE_BATCH),
    augmentation="as_coded",
    spare_sides=False,
    train=TrainConfig(
        stages=(
            StageConfig(
                "projections",
                (LOCKED, HEADS),
                1e-5,
                BATCH,
                epochs=15,
                eval_every=500,
                patience=3,
                optimizer=OptimizerConfig(),
            ),
            StageConfig("towers", (ParameterRule(".*"),), 1e-5, BATCH, epochs=15, eval_every=500),
        ),
        log_every=50,
    ),
)

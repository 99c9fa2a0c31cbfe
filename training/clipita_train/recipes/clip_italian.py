"""CLIP-Italian as it was published: BERT and CLIP's ViT, first their projections alone, then all of it.

clipita-train run clip_italian --out DIR --set data.root=PAIRS

PAIRS holds a list of pairs for each source, {"image_path": ..., "captions": [...]} a line, and its folder of
photographs: wit.jsonl and wit/, mscoco_it.jsonl and mscoco/, conceptual.jsonl and conceptual/, ilpost.jsonl and
ilpost/; about 1.4 million pairs in all. Other names and formats can be set: --set data.sources.0.format=shards.

What it repeats of the original (clip-italian/clip-italian; arXiv:2108.08688): the towers, 96 tokens, projections to
512, a fixed scale of 20, a loss that tells apart the 128 pairs of one of its eight devices (on up to eight of yours),
BERT's dropout of 0.1 in both stages (locked towers were run with it too; CLIP's ViT has none), AGC of every leaf that
learns, AdaBelief with warm-up over a tenth of the steps and a cosine to 0, no weight decay (its command line took one,
and betas, that nothing read), its augmentation as coded, 5 % of every source for validation, the best validation loss.

The first stage is what run_training.sh said when it made the checkpoint from which the second began (commit 8f7f4c5):
5e-5 over 50 epochs, of which that was the 26th, on an earlier version of the data. How it was seen to have converged is
not said: here it is over when three evaluations have brought nothing. The write-up's 1e-5 is the second's.

What it does not repeat:
- The photographs that augmentation crops from are the middle square with a margin of 32 pixels, resized as for serving.
  The original slid its window along the longer side, after resizing without antialiasing.
- Attention drops of each caption and head by itself. Flax drew one mask for all heads and captions of a device.
- The optax of 2021 added 1e-16 to the square that AdaBelief divides by, today's adds it at every step, as its paper has
  it: gradients that hardly change are divided by no less than 3e-7, where it was 1e-8.
- Projections start with a deviation of 0.036, Flax's own for 768 inputs; the original's had 0.02, beside which the same
  step of AdaBelief is larger.
- A pair's caption is drawn by the pair and the epoch; all 32 workers of the original drew by the same numbers.
- Validation takes the first caption, not any, and all pairs: the last batch was dropped. It comes every 500 steps, not
  after every epoch.

Expected (published): MSCOCO-IT text to image MRR@1 0.3797, ImageNet in Italian 22.11 % top-1. Not run to its end here:
the backbones and the data were not at hand.
"""

from clipita_train.engine.config import LossConfig, OptimizerConfig, ParameterRule, StageConfig, TrainConfig
from clipita_train.pairs.recipe import DataConfig, ImageBackbone, PairRecipe, PairSource, TextBackbone

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
    text=TextBackbone("dbmdz/bert-base-italian-xxl-uncased", pooling="pooler", max_tokens=96, dropout=0.1),
    embed_dim=512,
    loss=LossConfig("per_device", logit_scale=20.0, device_batch=DEVICE_BATCH),
    augmentation="as_coded",
    spare_sides=False,
    cache_features=False,  # since dropout was on in a locked tower
    train=TrainConfig(
        stages=(
            StageConfig(
                "projections",
                (LOCKED, HEADS),
                5e-5,
                BATCH,
                epochs=50,
                eval_every=500,
                patience=3,
                optimizer=OptimizerConfig(),
            ),
            StageConfig("towers", (ParameterRule(".*"),), 1e-5, BATCH, epochs=15, eval_every=500),
        ),
        log_every=50,
    ),
)

"""CLIP-Italian as it was published: BERT and CLIP's ViT; first the projections are trained alone, then everything.

      clipita-train run clip_italian --out DIR --set data.root=PAIRS

PAIRS holds, for each source, a list of pairs with {"image_path": ..., "captions": [...]} on each line, and a folder of
photographs: wit.jsonl and wit/, mscoco_it.jsonl and mscoco/, conceptual.jsonl and conceptual/, ilpost.jsonl and
ilpost/; about 1.4 million pairs in all. Other names and formats can be set, e.g. --set data.sources.0.format=shards.

Taken over from the original (clip-italian/clip-italian; arXiv:2108.08688): the towers; 96 tokens; projections to 512
dimensions; a fixed scale of 20; a loss that compares only the 128 pairs of each of its eight devices (reproduced here
on up to eight devices); BERT's dropout of 0.1 in both stages, also while it is locked (CLIP's ViT has none); adaptive
gradient clipping of everything that is trained; AdaBelief with a warm-up over a tenth of the steps, and a cosine decay
to 0; no weight decay (the command line had options for it and for the betas, but nothing read them); its augmentation
as coded; 5 % of every source for validation; the weights with the best validation loss.

The first stage follows run_training.sh as it was when it made the checkpoint from which the second stage began (commit
8f7f4c5): 5e-5 over 50 epochs, of which this was the 26th, on an earlier version of the data. How convergence was judged
is not published; here the stage ends when three evaluations in a row bring no improvement. The write-up's learning rate
of 1e-5 is that of the second stage.

Different from the original:

- Augmentation crops from the middle square of a photograph with a margin of 32 pixels, resized as for serving. The
  original moved its window along the longer side, after resizing without antialiasing.
- Dropout of attention differs for each caption and head. Flax drew one mask for all heads and captions of a device.
- The optax of 2021 added 1e-16 to the square that AdaBelief divides by. Today's adds it at every step, as in the paper,
  so gradients that hardly change are divided by at least 3e-7, where it was 1e-8.
- Projections start with a standard deviation of 0.036, Flax's default for 768 inputs; the original had 0.02, so that
  the same step of AdaBelief was larger in proportion.
- The caption of a pair is drawn by the pair and the epoch. All 32 workers of the original drew by the same numbers.
- Validation takes the first caption, not any, and all pairs, where the original dropped the last batch. It comes every
  500 steps instead of after every epoch.

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
    licence="GPL-3.0",  # the license of the published weights
    data=DataConfig(SOURCES, threads=8),
    image=ImageBackbone("openai/clip-vit-base-patch32"),
    text=TextBackbone("dbmdz/bert-base-italian-xxl-uncased", pooling="pooler", max_tokens=96, dropout=0.1),
    embed_dim=512,
    loss=LossConfig("per_device", logit_scale=20.0, device_batch=DEVICE_BATCH),
    augmentation="as_coded",
    spare_sides=False,
    cache_features=False,  # cached features have no dropout, and the locked BERT had it
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

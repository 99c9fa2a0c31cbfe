"""CLIP-Italian put right: the same towers, pairs and epochs, and every weakness of the original that is known mended.

clipita-train run clip_italian_plus --out DIR --set data.root=PAIRS

Pairs as for clip_italian, from which this differs in: the loss tells a pair from all pairs of the global batch, not
from the 127 others of its device; no flip, so that left stays left, and milder augmentation that leaves no grey
corners; texts padded to 32 or 64 tokens where they are no longer; projections learn at 1e-3, as they start from
nothing; the towers' lower layers learn more slowly than their upper ones; the scale is learned, from 20 on. Products
are computed in bfloat16.

Dropout stays while BERT learns: the original was trained until its validation loss rose, and nothing here has measured
that it can go. While BERT is locked it could only blur what the projections learn from: its features are computed once,
without.

Not run to its end here. Each correction is one `--set`, to measure it alone: loss.kind, loss.learned, augmentation,
text.dropout, train.stages.1.parameters.0.layer_decay, ...
"""

from dataclasses import replace

from clipita_train.engine.config import LossConfig, ParameterRule, StageConfig, TrainConfig
from clipita_train.recipes.clip_italian import BATCH, HEADS, LOCKED
from clipita_train.recipes.clip_italian import RECIPE as PUBLISHED

FIRST = ParameterRule(  # what comes before the layers
    "image/(patch|class_token|position|embedding_norm)/.*|text/(word|position|token_type|norm)/.*", 0.9**12
)
LAYERS = ParameterRule("(?:image|text)/layers/([0-9]+)/.*", layer_decay=0.9)
LAST = ParameterRule("image/norm/.*|text/pooler/.*")

RECIPE = replace(
    PUBLISHED,
    name="clip-italian-plus",
    text=replace(PUBLISHED.text, lengths=(32, 64)),
    loss=LossConfig("softmax", logit_scale=20.0, learned=True),
    augmentation="light",
    cache_features=True,
    dtype="bfloat16",
    train=TrainConfig(
        stages=(
            StageConfig("projections", (LOCKED, HEADS), 1e-3, BATCH, epochs=5, eval_every=500, patience=3),
            StageConfig("towers", (FIRST, LAYERS, LAST, HEADS), 2e-5, BATCH, epochs=15, eval_every=500),
        ),
        log_every=50,
    ),
)

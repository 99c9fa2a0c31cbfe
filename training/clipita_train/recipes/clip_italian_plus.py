"""CLIP-Italian improved: the same towers, pairs and epochs, without the known weaknesses of the original.

      clipita-train run clip_italian_plus --out DIR --set data.root=PAIRS

PAIRS is as for clip_italian. The differences from that recipe: the loss compares a pair with all pairs of the global
batch, not only with the 127 others of its device; there is no flip, so that left stays left, and augmentation is milder
and leaves no gray corners; texts are padded only to 32 or 64 tokens if they are not longer; projections, which start
from random weights, learn at 1e-3; the lower layers of the towers learn more slowly than the upper ones; the scale is
learned, starting at 20; and products are computed in bfloat16.

Dropout stays while BERT learns: the original was trained until its validation loss rose, and nothing measured here
shows that dropout can go. While BERT is locked, dropout could only blur what the projections learn from, so its
features are computed once, without dropout.

Not run to its end here. Each change can be measured by itself with `--set`: loss.kind, loss.learned, augmentation,
text.dropout, train.stages.1.parameters.0.layer_decay, ...
"""

from dataclasses import replace

from clipita_train.engine.config import LossConfig, ParameterRule, StageConfig, TrainConfig
from clipita_train.recipes.clip_italian import BATCH, HEADS, LOCKED
from clipita_train.recipes.clip_italian import RECIPE as PUBLISHED

FIRST = ParameterRule(  # parameters before the first layer
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

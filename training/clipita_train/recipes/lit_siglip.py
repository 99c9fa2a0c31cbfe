"""An Italian text tower for SigLIP's image tower, which is locked; sigmoid loss with a learned scale and bias.

      clipita-train run lit_siglip --out DIR --set data.root=PAIRS

PAIRS is as for clip_italian. The image tower does not change, and photographs are not augmented, so image features are
computed once and only a BERT is trained. Sources: Zhai et al., "LiT" (arXiv:2111.07991), and "Sigmoid Loss for Language
Image Pre-Training" (arXiv:2303.15343) for the scale of 10, the bias of -10, and no weight decay on a pretrained tower
that is not locked.

Not run to its end here.
"""

from dataclasses import replace

from clipita.towers.config import NO_PROJECTION
from clipita_train.engine.config import LossConfig, OptimizerConfig, ParameterRule, StageConfig, TrainConfig
from clipita_train.pairs.recipe import ImageBackbone
from clipita_train.recipes.clip_italian import RECIPE as PUBLISHED

IMAGE = ParameterRule("image/.*", 0.0)

RECIPE = replace(
    PUBLISHED,
    name="lit-siglip-it",
    licence="Apache-2.0",
    image=ImageBackbone("google/siglip-base-patch16-224"),
    text=replace(PUBLISHED.text, max_tokens=64, lengths=(32,), dropout=0.0),
    embed_dim=768,
    image_projection=NO_PROJECTION,  # SigLIP's pooled features are its embedding
    loss=LossConfig("sigmoid", logit_scale=10.0, logit_bias=-10.0, learned=True),
    augmentation="none",
    cache_features=True,
    train=TrainConfig(
        stages=(
            StageConfig(
                "projection",
                (IMAGE, ParameterRule("text/.*", 0.0), ParameterRule("text_projection/.*|loss/.*")),
                1e-3,
                batch_size=4096,
                epochs=2,
                eval_every=200,
            ),
            StageConfig(
                "text",
                (IMAGE, ParameterRule("text/.*", 0.1), ParameterRule("text_projection/.*|loss/.*")),
                1e-3,
                batch_size=4096,
                epochs=10,
                eval_every=200,
                optimizer=OptimizerConfig("adamw", clipping=0.0, b2=0.95, eps=1e-8),
            ),
        ),
        log_every=50,
    ),
)

"""clipita-mini: EfficientNet-lite2 and multilingual-e5-small, locked, and projections between them.

clipita-train prepare mini --root PHOTOGRAPHS --work WORK
clipita-train run mini --root PHOTOGRAPHS --work WORK --nouns data.noun --omw omw-data/wns
clipita-train export mini ... --out clipita/models/clipita-mini
"""

from clipita.convert.quantize import SMALL
from clipita.tokenizer import TokenizerConfig
from clipita.towers.config import ProjectionConfig
from training.config import ParameterRule, StageConfig, TrainConfig
from training.data.batches import Mix
from training.data.sources import SOURCES
from training.recipe import Recipe

RECIPE = Recipe(
    name="clipita-mini",
    licence="Apache-2.0",
    sources=SOURCES,
    lite_variant=2,
    image_size=224,
    embed_dim=256,
    image_projection=ProjectionConfig(bias=True),
    text_projection=ProjectionConfig(hidden=512, bias=True),
    tokenizer=TokenizerConfig(max_tokens=96, prefix="query: "),
    mix=Mix(photographs=512, texts=768, words=384, captions=128),
    boosts={"grocery": 8.0, "clothing": 2.0, "rooms_places365": 2.0, "houses": 2.0},
    train=TrainConfig(
        stages=(
            StageConfig(
                "projections",
                (ParameterRule("(image|text)_projection/.*"),),
                learning_rate=2e-3,
                batch_size=512,
                steps=4000,
                eval_every=500,
            ),
        ),
        logit_scale=20.0,
    ),
    text_noise=0.5,
    image_dropout=0.1,
    word_weight=0.7,
    caption_weight=0.5,
    decorrelation=0.75,
    synset_repeats=2,
    captions_per_photograph=3,
    frequent_words=60_000,
    weight_formats=SMALL,
    templates=("{}", "una foto di {}", "un'immagine di {}"),
)

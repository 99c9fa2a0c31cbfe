"""clipita-mini: EfficientNet-lite2, whose end is trained, multilingual-e5-small, and projections between them.

      clipita-train prepare mini --root PHOTOGRAPHS --work WORK
      clipita-train run mini --root PHOTOGRAPHS --work WORK --nouns data.noun --omw omw-data/wns
      clipita-train export mini ... --out clipita/models/clipita-mini

With the 212,000 photographs of the sixth edition it takes about an hour and three quarters on two CPU cores, features
included, 7 GB of disk and 9 GB of memory. Expected, of that edition, in `clipita-train evaluate everyday`: 55 % of an
archive's photographs named by the best of 44 labels, and 46 % of its queries answered with a right photograph first;
in `evaluate development`, a mean top-1 of 88.6 % on its 22 questions. All scores are in benchmarks/quality; what was
tried on the way is in docs/en/training/history.md.

First both towers are locked, as in CLIP-Italian. Then the last three blocks and the head of the image tower are
trained, on maps of 8 x 8 x 208 numbers that the blocks before them give for each photograph. The projections that were
trained with them are thrown away. Two new pairs of projections are trained on the features of the tower that results,
and merged into one.

The bundle in the package, whose scores these are, was trained on from the image tower of its fifth edition: `run mini
--tail-from BUNDLE`. From ImageNet's tower these stages have not been run; the fifth's tower had 510 steps before.
"""

from dataclasses import replace

from clipita.convert.weights.quantize import SMALL
from clipita.text.tokenizer import TokenizerConfig
from clipita.towers.config import ProjectionConfig
from clipita_train.concepts.batches import Mix
from clipita_train.concepts.recipe import ProjectionsRecipe, Recipe, TailRecipe
from clipita_train.data.photographs.collections import COLLECTIONS
from clipita_train.engine.config import ParameterRule, StageConfig, TrainConfig

BOOSTS = {
    "tiny_imagenet": 1.4,
    "grocery": 8.0,
    "clothing": 2.0,
    "rooms_places365": 2.0,
    "houses": 2.0,
    "flickr8k": 5.0,
    "man_woman": 2.0,
    "pacs_photo": 2.0,
    "animal_pose": 2.0,
    "beaches_mexico": 4.0,
    "weizmann_horses": 2.0,
    "monkey_species": 1.5,
    "squirrels": 3.0,
    "oranges": 2.0,
    **{source.name: 2.5 for source in COLLECTIONS if source.name.startswith("album_")},
}
PROJECTIONS = StageConfig(
    "projections",
    (ParameterRule("(image|text)_projection/.*"),),
    learning_rate=2e-3,
    batch_size=512,
    steps=5000,
    eval_every=1000,
)
MEMBER = ProjectionsRecipe(
    boosts=BOOSTS | {"weizmann_horses": 4.0, "meals": 3.0, "meals20": 3.0, "pexels_small": 6.0, "food101_64px": 0.5},
    train=TrainConfig(stages=(PROJECTIONS,)),
)

RECIPE = Recipe(
    name="clipita-mini",
    licence="Apache-2.0",
    sources=COLLECTIONS,
    lite_variant=2,
    tail=TailRecipe(
        blocks=3,
        image_size=256,
        projections=ProjectionsRecipe(
            boosts=BOOSTS,
            train=TrainConfig(
                stages=(
                    replace(
                        PROJECTIONS,
                        parameters=(*PROJECTIONS.parameters, ParameterRule("image_tail/.*", 0.0)),
                        steps=2000,
                        eval_every=500,
                    ),
                    StageConfig(
                        "tail",
                        (ParameterRule("(image|text)_projection/.*"), ParameterRule("image_tail/.*", 0.3)),
                        learning_rate=5e-4,
                        batch_size=448,
                        steps=260,
                        eval_every=65,
                    ),
                ),
            ),
        ),
    ),
    image_size=256,
    embed_dim=256,
    image_projection=ProjectionConfig(bias=True),
    text_projection=ProjectionConfig(hidden=1536, bias=True),
    members=(MEMBER, replace(MEMBER, boosts=MEMBER.boosts | {"flickr8k": 9.0, "man_woman": 4.0}, text_drift=0.4)),
    tokenizer=TokenizerConfig(96, prefix="query: ", visible_only=True, plain_spaces=True, lower_case=True),
    mix=Mix(photographs=448, texts=768, words=384, captions=320),
    logit_scale=20.0,
    text_noise=0.5,
    image_dropout=0.1,
    word_weight=0.7,
    caption_weight=0.8,
    label_repeats=4,
    synset_repeats=2,
    captions_per_photograph=3,
    frequent_words=35_000,
    weight_formats=SMALL,
    templates=("{}", "una foto di {}", "un'immagine di {}"),
    integer_images=True,
)

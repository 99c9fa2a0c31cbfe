"""The recipes of this package: their stages against the parameters of the towers that they name, without weights."""

import jax
import pytest
from clipita_train import recipes
from clipita_train.cli import KINDS
from clipita_train.engine.optimizer import build_optimizer
from clipita_train.engine.recipe_files import recipe_names
from clipita_train.engine.state import split_model
from clipita_train.losses.configured import PairLoss
from clipita_train.pairs.recipe import PairRecipe
from clipita_train.recipe_kinds import load_recipe
from flax import nnx

from clipita.convert.layouts.dual import clip_preprocessing, half_preprocessing
from clipita.images.pixels import Preprocessing
from clipita.towers.config import BertConfig, DualConfig, VitConfig
from clipita.towers.dual import DualEncoder
from clipita.towers.efficientnet_config import LITE0

BERT = BertConfig(31_102, width=768, mlp_width=3072, pooling="pooler")
B32 = VitConfig(32, 768, 12, 12, 3072, "quick_gelu", 1e-5, False, True, True, "cls")
SIGLIP = VitConfig(16, 768, 12, 12, 3072, "gelu_tanh", 1e-6, True, False, False, "map")
SMALL = Preprocessing(128, "shortest", "bicubic", (127.0,) * 3, (128.0,) * 3)
TOWERS = {
    "clip_italian": (B32, BERT, clip_preprocessing(224)),
    "clip_italian_plus": (B32, BERT, clip_preprocessing(224)),
    "lit_siglip": (SIGLIP, BERT, half_preprocessing(224, "bicubic")),
    "clip_small": (LITE0, BertConfig(31_000, token_types=1, positions=24), SMALL),
}
RECIPES = {name: load_recipe(name, KINDS, recipes).RECIPE for name in recipe_names(recipes) if name != "mini"}


def test_every_recipe_is_here():
    assert RECIPES.keys() == TOWERS.keys()
    assert all(isinstance(recipe, PairRecipe) for recipe in RECIPES.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", list(TOWERS))
def test_the_stages_account_for_every_parameter(name):
    recipe, (image, text, preprocessing) = RECIPES[name], TOWERS[name]
    config = DualConfig(image, text, preprocessing, recipe.embed_dim, recipe.image_projection, recipe.text_projection)
    model = nnx.eval_shape(lambda: DualEncoder(config, rngs=nnx.Rngs(0)))
    model.loss = PairLoss(recipe.loss, jax.make_mesh((1,), ("data",)))
    params = split_model(model)[1]
    for stage in recipe.train.stages:
        assert build_optimizer(stage, params, total_steps=10)


def test_clip_italian_is_as_published():
    recipe = RECIPES["clip_italian"]
    first, second = recipe.train.stages
    assert (recipe.loss.kind, recipe.loss.logit_scale, recipe.loss.learned) == ("per_device", 20.0, False)
    assert (recipe.augmentation, recipe.text.max_tokens, recipe.embed_dim) == ("as_coded", 96, 512)
    assert (recipe.text.dropout, recipe.cache_features) == (0.1, False)  # in the locked tower too
    assert (first.learning_rate, first.batch_size, first.epochs) == (5e-5, 8 * 128, 50)
    assert [rule.multiplier for rule in first.parameters] == [0.0, 1.0]
    assert (second.learning_rate, second.batch_size, second.epochs) == (1e-5, 8 * 128, 15)
    assert (second.optimizer.kind, second.optimizer.clipping, second.optimizer.weight_decay) == ("adabelief", 0.01, 0.0)
    assert second.optimizer.warmup == 0.1
    assert RECIPES["clip_italian_plus"].loss.kind == "softmax"


@pytest.mark.parametrize(("name", "dropout"), [("clip_italian_plus", 0.1), ("lit_siglip", 0.0)])
def test_what_is_made_from_clip_italian_has_its_own_dropout(name, dropout):
    """And runs a locked tower once, which clip_italian runs at every step."""
    assert (RECIPES[name].text.dropout, RECIPES[name].cache_features) == (dropout, True)

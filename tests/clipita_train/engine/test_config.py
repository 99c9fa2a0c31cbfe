import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest
from clipita_train.data.builder.recipe import Source
from clipita_train.engine.config import (
    LossConfig,
    OptimizerConfig,
    ParameterRule,
    StageConfig,
    TrainConfig,
    replace_from_strings,
)
from clipita_train.engine.optimizer import build_optimizer
from clipita_train.losses.configured import PairLoss
from clipita_train.pairs.files import open_pairs
from clipita_train.pairs.recipe import PairSource, TextBackbone

CONFIG = TrainConfig(
    stages=(
        StageConfig("uno", (ParameterRule("image/.*", 0.0), ParameterRule("text/.*")), 1e-3, 32),
        StageConfig("due", (ParameterRule(".*"),), 1e-5, 64, steps=10),
    )
)


@dataclasses.dataclass(frozen=True)
class Recipe:
    train: TrainConfig = CONFIG
    sources: tuple[str, ...] = ("wit",)
    shuffle: bool = True


def test_sets_values_of_every_type():
    recipe = replace_from_strings(
        Recipe(),
        [
            "train.stages.0.learning_rate=1e-4",
            "train.stages.0.parameters.1.multiplier=0.5",
            "train.stages.0.optimizer.kind=adamw",
            "train.stages.1.steps=none",
            "train.stages.1.patience = 3",
            "sources=coco, ilpost",
            "shuffle=false",
        ],
    )
    first, second = recipe.train.stages
    assert (first.learning_rate, first.parameters[1].multiplier, first.optimizer.kind) == (1e-4, 0.5, "adamw")
    assert (second.steps, second.patience) == (None, 3)
    assert (recipe.sources, recipe.shuffle) == (("coco", "ilpost"), False)
    assert second.learning_rate == CONFIG.stages[1].learning_rate
    assert CONFIG.stages[0].learning_rate == 1e-3


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("stages.0.learning_rte=1", "not 'learning_rte'; did you mean 'learning_rate'"),
        ("stages.0.batch_size=1.5", "expected int, not '1.5'"),
        ("stages.0.learning_rate=fast", "expected float, not 'fast'"),
        ("stages.0.optimizer.kind=adabelieve", "expected one of adabelief, adamw.*did you mean 'adabelief'"),
        ("stages.2.batch_size=8", "'2' picks none of 2 values"),
        ("stages.0=8", "name one of its fields"),
        ("stages=8", "name one of its fields"),
        ("seed.x=8", "'x' is a part of 0"),
        ("seed=none", "expected int"),
        ("stages.0.batch_size=0", "batch_size must be >= 1, not 0"),
        ("stages.0.optimizer.warmup=2", "warmup must be a share"),
        ("seed", "sets nothing"),
    ],
)
def test_what_cannot_be_set_is_explained(assignment, message):
    with pytest.raises(ValueError, match=message) as raised:
        replace_from_strings(CONFIG, [assignment])
    assert assignment in str(raised.value)


def test_a_boolean_is_true_or_false():
    with pytest.raises(ValueError, match="expected true or false, not '1'"):
        replace_from_strings(Recipe(), ["shuffle=1"])


def test_the_defaults_are_those_of_clip_italian():
    assert OptimizerConfig() == OptimizerConfig("adabelief", 0.01, 1e-3, weight_decay=0.0, warmup=0.1)
    assert LossConfig().logit_scale == 20.0
    assert not LossConfig().learned


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LossConfig(kind="sofmax"), r"kind must be one of 'softmax', 'per_device', 'sigmoid', not 'sofmax'"),
        (lambda: OptimizerConfig(kind="adam"), "kind must be one of 'adabelief', 'adamw', not 'adam'"),
        (lambda: OptimizerConfig(decay="step"), "decay must be one of 'cosine', 'linear', not 'step'"),
        (lambda: StageConfig("a", (), 1e-3, 8, start_from="first"), "start_from must be one of 'best', 'last'"),
        (lambda: PairSource("a", "a", format="csv"), "format must be one of 'json_lines', .* not 'csv'"),
        (lambda: TextBackbone("a", pooling="max"), "pooling must be one of 'pooler', 'cls', 'mean', not 'max'"),
        (lambda: Source("a", "parquet", ("a",), licence="CC0"), "reader must be one of 'wit', .* not 'parquet'"),
    ],
)
def test_a_choice_that_there_is_not_is_an_error_in_a_recipe_too(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_whoever_acts_on_a_choice_has_no_case_for_all_others() -> None:
    """A literal that is added to a configuration, and forgotten where it counts, raises there."""
    config = LossConfig()
    object.__setattr__(config, "kind", "triplet")  # as a later version might have it
    embeddings = jnp.eye(4)
    with pytest.raises(AssertionError, match="'triplet'"):
        PairLoss(config)(embeddings, embeddings)
    for name in ("kind", "decay"):
        optimizer = OptimizerConfig()
        object.__setattr__(optimizer, name, "other")
        stage = StageConfig("a", (ParameterRule(".*"),), 1e-3, 8, optimizer=optimizer)
        with pytest.raises(AssertionError, match="'other'"):
            build_optimizer(stage, {"a": jnp.ones((2, 2))}, total_steps=10)
    source = PairSource("a", ".")
    object.__setattr__(source, "format", "csv")
    with pytest.raises(AssertionError, match="'csv'"):
        open_pairs(source, Path(), lambda *_: None)

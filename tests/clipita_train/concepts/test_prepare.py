"""Repositories that judge do not train: a recipe that has one as its source is refused before anything is read."""

from dataclasses import replace
from pathlib import Path

import pytest
from clipita_train.concepts.recipe import prepare
from clipita_train.data.photographs.collection import Collection
from clipita_train.evaluate.everyday.sets import everyday_sets
from clipita_train.recipes.mini import RECIPE


@pytest.mark.parametrize("further", [False, True])
def test_a_source_that_is_kept_out_for_evaluation_is_refused(further: bool, tmp_path: Path) -> None:
    name = everyday_sets().photographs[0].repository
    source = Collection("mine", "chi/sa" if further else name, "CC0", lambda _: [], further=(name,) * further)
    with pytest.raises(ValueError, match=f"{name}: kept out of training"):
        prepare(replace(RECIPE, sources=(source,)), tmp_path, tmp_path / "work")
    prepare(replace(RECIPE, sources=(*RECIPE.sources, source)), tmp_path, tmp_path / "work", without=_names(source))
    assert (tmp_path / "work" / "manifest.jsonl").is_file()


def _names(source: Collection) -> list[str]:
    return [*(collection.name for collection in RECIPE.sources), source.name]

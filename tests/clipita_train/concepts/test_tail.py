"""The last blocks of an image tower, cut off, are those of the tower; what they learn comes back into it."""

from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from clipita_train.concepts.features import PhotographFeatures
from clipita_train.concepts.tail import first_block, image_tail, learns, tower_weights
from clipita_train.engine.config import ParameterRule, StageConfig
from clipita_train.towers.features import features_of_maps, image_features, locked_image_end, locked_image_tower
from flax import nnx
from PIL import Image
from support.tiny import CONFIG, tiny_table

from clipita.convert.layouts.efficientnet_lite import fold_batch_norm
from clipita.towers.efficientnet_config import block_shapes, map_shape

TOWER = {name: values for name, values in fold_batch_norm(tiny_table()).items() if name.startswith("image.")}
BLOCKS = len(block_shapes(CONFIG.image))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(5)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (44, 48, 3), dtype=np.uint8)).save(path)
    return paths


def features(paths: list[Path], folder: Path, tower: dict[str, np.ndarray]) -> np.ndarray:
    locked = locked_image_tower(CONFIG, tower)
    return image_features(locked, paths, CONFIG, folder)[0]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, BLOCKS - 1])
def test_the_tail_goes_on_where_the_first_blocks_end(photographs: list[Path], tmp_path: Path, count: int) -> None:
    first = first_block(CONFIG, count)
    before = locked_image_tower(CONFIG, TOWER, blocks=first)
    maps, readable = image_features(before, photographs, CONFIG, tmp_path / "maps")
    assert readable.all()
    assert maps.shape == (5, *map_shape(CONFIG.image, CONFIG.preprocessing.image_size, first))
    expected = features(photographs, tmp_path, TOWER).astype(np.float32)
    tail = image_tail(CONFIG, TOWER, first)
    assert len(tail.blocks) == count
    np.testing.assert_allclose(tail(jnp.asarray(maps)), expected, atol=0.02 * expected.max())


def test_features_come_from_maps_that_are_kept(photographs: list[Path], tmp_path: Path) -> None:
    first = first_block(CONFIG, 2)
    before = locked_image_tower(CONFIG, TOWER, blocks=first)
    image_features(before, photographs, CONFIG, tmp_path / "maps")
    changed = {**TOWER, "image.head.bias": TOWER["image.head.bias"] + 1}
    expected = [features(photographs, tmp_path / str(i), tower) for i, tower in enumerate((TOWER, changed))]
    photographs[1].write_bytes(b"no picture")  # which nobody reads any more
    for tower, whole in zip((TOWER, changed), expected, strict=True):
        end = locked_image_end(CONFIG, tower, first, before)
        found, readable = features_of_maps(before, end, photographs, CONFIG, tmp_path / "of maps", tmp_path / "maps")
        assert readable.all()
        np.testing.assert_allclose(found, whole, atol=0.02 * float(whole.max()))
    absent = [*photographs, tmp_path / "absent.jpg"]
    found, readable = features_of_maps(before, end, absent, CONFIG, tmp_path / "of maps", tmp_path / "maps")
    assert readable.tolist() == [True, False, True, True, True, False]  # another list is read anew
    assert not found[~readable].any()


def test_what_it_learns_comes_back_into_the_tower(photographs: list[Path], tmp_path: Path) -> None:
    tail = image_tail(CONFIG, TOWER, BLOCKS - 1)
    weights = tower_weights(tail)
    assert weights.keys() < TOWER.keys()
    assert all(np.array_equal(values, TOWER[name]) for name, values in weights.items())
    tail.head.bias[...] = tail.head.bias[...] + 1
    changed = {**TOWER, **tower_weights(tail)}
    np.testing.assert_array_equal(changed["image.head.bias"], TOWER["image.head.bias"] + 1)
    before, after = (features(photographs, tmp_path / str(i), tower) for i, tower in enumerate((TOWER, changed)))
    assert (after >= before).all()
    assert (after > before).any()


def test_only_some_blocks_can_be_the_last() -> None:
    for count in (BLOCKS, 99):
        with pytest.raises(
            ValueError, match=f"1 to {BLOCKS - 1} of the {BLOCKS} blocks of the image tower, not {count}"
        ):
            first_block(CONFIG, count)


def test_a_stage_says_by_its_rules_whether_the_tail_learns() -> None:
    stage = StageConfig("tail", (ParameterRule("image_tail/.*", 0.3),), learning_rate=1.0, batch_size=1)
    assert learns(stage)
    assert not learns(replace(stage, parameters=(ParameterRule("image_tail/.*", 0.0), ParameterRule("text/.*"))))


def test_maps_that_were_not_cached_are_missed_at_once() -> None:
    shown = PhotographFeatures(np.zeros((2, 3), np.float16), np.zeros(2, np.int64))
    assert shown.model_inputs(mapped=False) is shown.features
    with pytest.raises(ValueError, match=r"no maps were cached: assemble with tail_blocks"):
        shown.model_inputs(mapped=True)


@pytest.mark.slow
def test_gradients_reach_every_weight_of_the_tail() -> None:
    first = first_block(CONFIG, 2)
    tail = image_tail(CONFIG, TOWER, first)
    shape = map_shape(CONFIG.image, CONFIG.preprocessing.image_size, first)
    maps = jnp.asarray(np.random.default_rng(0).normal(size=(4, *shape)), jnp.float16)
    gradients = nnx.grad(lambda tail: jnp.square(tail(maps)).sum())(tail)
    for path, gradient in nnx.to_flat_state(nnx.state(gradients)):
        assert float(jnp.abs(gradient[...]).max()) > 0, path

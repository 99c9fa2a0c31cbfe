"""What is seen of pictures that are wider or higher than the square that a tower reads."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import PHOTOS

import clipita
from clipita.images.geometry import View, tile_boxes
from clipita.images.pixels import Crop, Preprocessing, load_pixels, load_squares

PHOTO = PHOTOS / "gatto.jpg"
SQUARE = Preprocessing(32, "shortest", "bicubic", (90.0, 100.0, 110.0), (128.0,) * 3)


@pytest.fixture(scope="module")
def panorama() -> Image.Image:
    """A cat at the left end of eight squares of sky."""
    wide = Image.new("RGB", (2400, 300), (150, 180, 210))
    with Image.open(PHOTO) as photo:
        wide.paste(photo.convert("RGB").resize((451, 300)), (0, 0))
    return wide


def test_tiles_are_squares_that_cover_the_picture_evenly() -> None:
    for size, count in (((300, 300), 1), ((310, 300), 1), ((400, 300), 2), ((600, 300), 2), ((601, 300), 2)):
        boxes = tile_boxes(View(Image.new("L", size), size))
        assert len(boxes) == count
        assert [(round(right - left), round(bottom - top)) for left, top, right, bottom in boxes] == [
            (300, 300)
        ] * count
        if count > 1:
            assert (boxes[0][0], boxes[-1][2]) == (0, size[0])
            assert all(later[0] <= earlier[2] + 30 for earlier, later in itertools.pairwise(boxes))
        turned = tile_boxes(View(Image.new("L", size[::-1]), size[::-1]))
        assert turned == [(top, left, bottom, right) for left, top, right, bottom in boxes]


def test_a_strip_has_sixteen_tiles_at_most() -> None:
    boxes = tile_boxes(View(Image.new("L", (20_000, 10)), (20_000, 10)))
    assert len(boxes) == 16
    assert (boxes[0][0], boxes[-1][2]) == (0, 20_000)


def test_pixels_of_tiles(panorama: Image.Image) -> None:
    tiles = load_squares(panorama, SQUARE, crop="tiles", name="a")
    assert (tiles.shape, tiles.dtype) == ((8, 32, 32, 3), np.uint8)
    square = load_pixels(panorama.crop((0, 0, 300, 300)), SQUARE, name="a")
    assert np.abs(tiles[0].astype(int) - square.astype(int)).max() <= 8  # at the edge: the filter sees beyond the box
    np.testing.assert_array_equal(tiles[5], np.broadcast_to(np.array([150, 180, 210], np.uint8), (32, 32, 3)))


def test_one_tile_of_a_square_is_the_middle(panorama: Image.Image) -> None:
    square = panorama.crop((0, 0, 300, 300))
    np.testing.assert_array_equal(
        load_squares(square, SQUARE, crop="tiles", name="a")[0], load_pixels(square, SQUARE, name="a", exact=True)
    )


def test_padding_shows_the_whole_on_the_mean_color(panorama: Image.Image) -> None:
    (padded,) = load_squares(panorama, SQUARE, crop="pad", name="a")
    assert padded.shape == (32, 32, 3)
    assert set(np.unique(padded[[0, 1, -1]]).tolist()) == {100}
    assert len(np.unique(padded[15:17])) > 4


@pytest.mark.slow
@pytest.mark.parametrize("crop", ["auto", "center", "pad", "tiles"])
def test_every_way_in_gives_the_same(crop: Crop, panorama: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    panorama.save(path)
    model = clipita.load()
    one = model.encode_image(path, crop=crop)
    assert one.shape == (256,)
    np.testing.assert_allclose(np.linalg.norm(one), 1, rtol=1e-5)
    many = model.encode_image([path, PHOTO, panorama], crop=crop, batch_size=2)
    np.testing.assert_allclose(many[[0, 2]], np.stack([one, one]), atol=1e-5)
    np.testing.assert_allclose(many[1], model.encode_image(PHOTO, crop=crop), atol=1e-5)
    results = list(model.iter_encode_image([path, b"no image", PHOTO], crop=crop))
    assert [result.error is None for result in results] == [True, False, True]
    np.testing.assert_allclose(results[2].embedding, many[1], atol=1e-5)
    np.testing.assert_allclose(clipita.encode_image(path, crop=crop), one, atol=1e-5)


@pytest.mark.slow
def test_by_default_only_panoramas_are_seen_in_tiles(panorama: Image.Image) -> None:
    def squares(size: tuple[int, int], **options: Any) -> int:
        return len(load_squares(panorama.resize(size), SQUARE, crop="auto", name="a", **options))

    assert [squares(size) for size in ((300, 300), (600, 300), (749, 300), (300, 749))] == [1, 1, 1, 1]
    assert [squares(size) for size in ((750, 300), (300, 750), (2400, 300))] == [3, 3, 8]
    assert squares((2400, 300), exact=True) == 1
    model, exact = clipita.load(), clipita.load(exact=True)
    for crop, same in (("tiles", model), ("center", exact)):
        default = same.encode_image(panorama)
        np.testing.assert_allclose(default, same.encode_image(panorama, crop=crop), atol=1e-5)  # type: ignore[arg-type]
    np.testing.assert_array_equal(model.encode_image(PHOTO), model.encode_image(PHOTO, crop="center"))


@pytest.mark.slow
def test_what_is_at_the_end_of_a_panorama_is_found(panorama: Image.Image) -> None:
    labels = ["gatto", "cielo", "cavallo"]
    whole = {score.label: score.score for score in clipita.zero_shot(panorama, labels)}
    center = {score.label: score.score for score in clipita.zero_shot(panorama, labels, crop="center")}
    assert center["gatto"] < 0.05 < whole["gatto"]
    assert whole["gatto"] > 10 * whole["cavallo"]
    assert clipita.zero_shot([panorama, PHOTO], labels)[0][0].label == clipita.zero_shot(panorama, labels)[0].label


def test_another_crop_is_refused(panorama: Image.Image) -> None:
    model = clipita.load()
    for call in (
        lambda: model.encode_image(panorama, crop="whole"),  # type: ignore[arg-type]
        lambda: model.encode_image([panorama], crop="whole"),  # type: ignore[arg-type]
        lambda: model.zero_shot(panorama, ["gatto", "cane"], crop="whole"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match=r"crop must be one of 'auto', 'center', 'pad', 'tiles', not 'whole'"):
            call()

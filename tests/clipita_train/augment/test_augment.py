import collections
import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner
from clipita_train.augment import color as colour
from clipita_train.augment.apply import augment, draw, sample_keys
from clipita_train.augment.homography import affine, flip, perspective, warp
from clipita_train.augment.presets import PRESETS, Augmentation
from clipita_train.cli import main
from clipita_train.engine.config import replace_from_strings
from PIL import Image, ImageEnhance, ImageOps

from clipita.images.pixels import Preprocessing, load_pixels

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("strict_types")]

CANVAS = Preprocessing(72, "shortest", "bicubic", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
SIZE = 64
PHOTOGRAPHS = [f"examples/photos/{name}.jpg" for name in ("gatto", "caffe", "astronauta", "razzo")]


@pytest.fixture(scope="module")
def pixels():
    return np.stack([load_pixels(path, CANVAS, name=path) for path in PHOTOGRAPHS])


@pytest.fixture
def cat(pixels):
    return pixels[0]


def ids(batch):
    return np.arange(len(batch), dtype=np.int32)


def as_float(image):
    return jnp.asarray(image, jnp.float32)


def largest_difference(ours, theirs):
    return int(np.abs(np.round(np.asarray(ours)).astype(int) - np.asarray(theirs).astype(int)).max())


def test_nothing_asked_for_is_the_middle_of_the_pixels_exactly(pixels):
    result = augment(pixels, ids(pixels), 3, config=Augmentation(), size=SIZE)
    assert result.dtype == jnp.uint8
    np.testing.assert_array_equal(result, pixels[:, 4:-4, 4:-4])
    np.testing.assert_array_equal(augment(pixels, ids(pixels), 3, config=Augmentation(), size=72), pixels)


def test_no_reach_of_the_whole_map_is_the_pixels_exactly(cat):
    still = affine(jnp.zeros(()), jnp.zeros(2), jnp.ones(()), jnp.zeros(2)) @ flip(jnp.array(False))
    for fill in (None, 127):
        np.testing.assert_array_equal(warp(jnp.asarray(cat), still, jnp.zeros(2, jnp.int32), 72, fill), cat)


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1.7])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (colour.brightness, ImageEnhance.Brightness),
        (colour.contrast, ImageEnhance.Contrast),
        (colour.saturation, ImageEnhance.Color),
    ],
)
def test_brightness_contrast_and_saturation_are_pillows(pixels, ours, theirs, factor):
    for image in pixels:
        expected = theirs(Image.fromarray(image)).enhance(factor)
        # Pillow rounds the grey, and truncates the result.
        assert largest_difference(ours(as_float(image), jnp.float32(factor)), expected) <= 1


@pytest.mark.parametrize("turn", [-0.4, -0.1, 0.0, 0.05, 0.5])
def test_hue_is_turned_as_colorsys_and_pillow_do(pixels, turn):
    for image in pixels:
        ours = np.asarray(colour.turn_hue(as_float(image), jnp.float32(turn)))
        for y, x in np.random.default_rng(0).integers(72, size=(50, 2)):
            h, s, v = colorsys.rgb_to_hsv(*(image[y, x] / 255.0))
            expected = np.array(colorsys.hsv_to_rgb((h + turn) % 1, s, v)) * 255
            np.testing.assert_allclose(ours[y, x], expected, atol=0.01)
        h, s, v = Image.fromarray(image).convert("HSV").split()
        steps = round(turn * 256)
        h = h.point([(level + steps) % 256 for level in range(256)])
        pillow = np.asarray(Image.merge("HSV", (h, s, v)).convert("RGB"))
        # Pillow's hue has 256 steps, of which each moves a channel by up to 255 * 6 / 256 = 6 levels.
        ours = np.asarray(colour.turn_hue(as_float(image), jnp.float32(steps / 256)))
        assert largest_difference(ours, pillow) <= 7
        assert np.abs(ours - pillow).mean() < 1.5


def test_no_turn_of_the_hue_changes_no_pixel(pixels):
    np.testing.assert_allclose(colour.turn_hue(as_float(pixels[2]), jnp.float32(0)), pixels[2], atol=1e-3)


def test_autocontrast_and_equalize_are_pillows(pixels):
    dull = (pixels // 3 + 40).astype(np.uint8)
    single = np.full((72, 72, 3), 90, np.uint8)
    two = np.where(np.arange(72)[:, None, None] < 20, np.uint8(3), np.uint8(200)) * np.ones((1, 72, 3), np.uint8)
    for image in (*pixels, *dull, single, two, pixels[0][:9, :9]):  # the last has fewer than 255 pixels a channel
        picture = Image.fromarray(image)
        # Pillow's autocontrast truncates where ours rounds.
        assert largest_difference(colour.autocontrast(as_float(image)), ImageOps.autocontrast(picture)) <= 1
        np.testing.assert_array_equal(colour.equalize(as_float(image)), ImageOps.equalize(picture))


def some_matrix(angle=0.2, shift=(5.0, -3.0), scale=0.9, shear=(0.1, -0.15), size=72):
    moved = affine(jnp.float32(angle), jnp.array(shift), jnp.float32(scale), jnp.array(shear))
    corners = jnp.array([[-30.0, -33.0], [34.0, -28.0], [29.0, 31.0], [-35.0, 33.0]])
    return flip(jnp.array(True)) @ moved @ perspective(corners, size)


def test_the_one_interpolation_is_that_of_pillows_perspective_transform(pixels):
    matrix = np.asarray(some_matrix(), np.float64)
    # Pillow's points are from the upper left corner of the image, pixels having their middle at a half.
    there = np.array([[1, 0, 36], [0, 1, 36], [0, 0, 1.0]])
    absolute = there @ matrix @ np.linalg.inv(there)
    coefficients = (absolute / absolute[2, 2]).ravel()[:8]
    for image in pixels:
        picture = Image.fromarray(image)
        args = ((72, 72), Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR)
        theirs = np.asarray(picture.transform(*args, fillcolor=(127, 127, 127)))
        ours = warp(jnp.asarray(image), some_matrix(), jnp.zeros(2, jnp.int32), 72, 127)
        assert (theirs == 127).all(2).mean() > 0.1  # there are corners to fill
        assert largest_difference(ours, theirs) <= 1


def test_a_perspective_takes_corners_to_corners():
    corners = jnp.array([[-30.0, -33.0], [34.0, -28.0], [29.0, 31.0], [-35.0, 33.0]])
    back = np.asarray(perspective(corners, 72)) @ np.concatenate([corners, np.ones((4, 1))], 1).T
    np.testing.assert_allclose((back[:2] / back[2]).T, 35.5 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]), atol=1e-3)


def test_rotation_scale_and_shift_go_where_they_say():
    forward = np.linalg.inv(affine(jnp.float32(np.pi / 2), jnp.array([5.0, 2.0]), jnp.float32(2), jnp.zeros(2)))
    np.testing.assert_allclose(forward @ [1, 0, 1], [5, 4, 1], atol=1e-5)  # right becomes down: clockwise
    np.testing.assert_allclose(forward @ [0, 1, 1], [3, 2, 1], atol=1e-5)
    sheared = np.linalg.inv(affine(jnp.float32(0), jnp.zeros(2), jnp.float32(1), jnp.array([np.pi / 4, 0.0])))
    np.testing.assert_allclose(sheared @ [0, 1, 1], [-1, 1, 1], atol=1e-5)  # torchvision's direction


def test_a_crop_is_a_piece_of_the_pixels_with_their_edge_around(pixels):
    config = Augmentation(crop=True, crop_padding=0.1)
    padded = np.pad(pixels, ((0, 0), (6, 6), (6, 6), (0, 0)), mode="edge")
    corners = set()
    for step in range(20):
        cropped = np.asarray(augment(pixels, ids(pixels), step, config=config, size=SIZE))
        for image, full, key in zip(cropped, padded, sample_keys(jax.random.key(0), ids(pixels), step), strict=True):
            x, y = (int(v) + 6 for v in draw(key, config, (72, 72), SIZE).corner)
            corners.add((x, y))
            np.testing.assert_array_equal(image, full[y : y + SIZE, x : x + SIZE])
    assert len(corners) > 60
    assert min(min(c) for c in corners) >= 0
    assert max(max(c) for c in corners) <= 20


def test_pixels_smaller_than_the_result_are_padded(pixels):
    result = np.asarray(augment(pixels, ids(pixels), 0, config=Augmentation(), size=76))
    np.testing.assert_array_equal(result, np.pad(pixels, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge"))


def test_a_photograph_may_be_oblong_and_the_crop_moves_along_its_longer_side(pixels):
    oblong = pixels[:, 4:-4]  # (4, 64, 72, 3)
    config = Augmentation(crop=True)
    seen = {int(draw(k, config, (64, 72), SIZE).corner[0]) for k in sample_keys(jax.random.key(0), np.arange(200), 0)}
    assert seen == set(range(9))
    assert augment(oblong, ids(oblong), 0, config=config, size=SIZE).shape == (4, SIZE, SIZE, 3)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_sample_is_the_same_in_whatever_batch(pixels, preset):
    def run(places, step=5, seed=1):
        chosen = np.asarray(places, np.int32)
        return np.asarray(augment(pixels[chosen], chosen + 100, step, config=PRESETS[preset], size=SIZE, seed=seed))

    together = run([0, 1, 2, 3])
    np.testing.assert_array_equal(run([3, 2, 1, 0]), together[::-1])
    np.testing.assert_array_equal(run([2]), together[2:3])
    np.testing.assert_array_equal(run([1, 1]), together[[1, 1]])
    if preset != "none":
        for other in (run([0, 1, 2, 3], step=6), run([0, 1, 2, 3], seed=2)):
            assert (other != together).any((1, 2, 3)).all()


def draws(config, count=20_000):
    drawn = jax.vmap(lambda key: draw(key, config, (72, 72), SIZE))(sample_keys(jax.random.key(0), np.arange(count), 0))
    return jax.tree.map(np.asarray, drawn)


def test_probabilities_hold():
    drawn = draws(PRESETS["as_coded"])
    share = lambda name: getattr(drawn, name).mean()  # noqa: E731
    expected = {"flipped": 0.5, "has_perspective": 0.3, "has_autocontrast": 0.3, "has_equalize": 0.3}
    for name, probability in expected.items():
        assert abs(share(name) - probability) < 4 * np.sqrt(probability * (1 - probability) / 20_000), name
    together = (drawn.has_autocontrast & drawn.has_equalize).mean()  # independent of each other
    assert abs(together - 0.09) < 4 * np.sqrt(0.09 * 0.91 / 20_000)
    for name in ("flipped", "has_autocontrast", "has_equalize", "has_perspective"):
        assert not getattr(draws(PRESETS["none"]), name).any()


def test_ranges_hold_and_are_used():
    drawn = draws(PRESETS["as_described"])
    degree = np.pi / 180
    ranges = {
        "brightness": (0.9, 1.1),
        "contrast": (0.9, 1.1),
        "saturation": (0.9, 1.1),
        "hue": (-0.1, 0.1),
        "angle": (-15 * degree, 15 * degree),
        "shift": (-6.4, 6.4),
        "scale": (0.8, 1.2),
        "shear": (-15 * degree, 15 * degree),
        "corner": (0, 8),
    }
    for name, (low, high) in ranges.items():
        values = getattr(drawn, name)
        margin = 0.01 * (high - low)
        assert low - 1e-6 <= values.min() <= low + margin, name
        assert high - margin <= values.max() <= high + 1e-6, name
        np.testing.assert_allclose(values.mean(), (low + high) / 2, atol=0.02 * (high - low))
    inwards = np.abs(drawn.corners)
    assert inwards.min() >= 31.5 * 0.7
    assert inwards.max() <= 31.5


def test_one_setting_does_not_move_what_another_draws():
    one, other = (
        draws(Augmentation(rotation=10), 50),
        draws(Augmentation(rotation=10, hue=0.1, flip=0.5, crop=True), 50),
    )
    np.testing.assert_array_equal(one.angle, other.angle)


def test_autocontrast_and_equalize_come_last_and_only_sometimes(pixels):
    batch = np.repeat(pixels[:1], 40, 0)
    config = Augmentation(equalize=0.3)
    result = np.asarray(augment(batch, ids(batch), 0, config=config, size=72))
    equal = np.asarray(ImageOps.equalize(Image.fromarray(batch[0])))
    kinds = collections.Counter(
        "equal" if (image == equal).all() else "same" if (image == batch[0]).all() else "else" for image in result
    )
    assert set(kinds) == {"equal", "same"}


def test_what_a_caption_forbids_is_not_mirrored(pixels):
    config = Augmentation(flip=1.0)
    may_flip = np.array([True, False, True, False])
    result = np.asarray(augment(pixels, ids(pixels), 0, config=config, size=72, may_flip=may_flip))
    np.testing.assert_array_equal(result[::2], pixels[::2, :, ::-1])
    np.testing.assert_array_equal(result[1::2], pixels[1::2])


def test_no_preset_but_as_coded_mirrors():
    assert [name for name, config in PRESETS.items() if config.flip] == ["as_coded"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hue": 0.6}, "hue must be from 0 to 0.5 turns, not 0.6"),
        ({"flip": 1.5}, "flip must be a probability"),
        ({"scale": (1.2, 0.8)}, "scale must be two numbers above 0, the lower one first"),
        ({"scale": (1.0,)}, "scale must be two numbers"),
        ({"fill": 256}, "fill must be None or a level"),
        ({"perspective": 1.0}, "perspective must be in"),
        ({"brightness": -0.1}, "brightness must be from 0 to 1"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**settings)


def test_settings_from_the_command_line():
    config = replace_from_strings(PRESETS["light"], ["scale=0.5,1", "fill=127", "crop=false", "hue=0.3"])
    assert (config.scale, config.fill, config.crop, config.hue) == ((0.5, 1.0), 127, False, 0.3)
    assert replace_from_strings(config, ["fill=none"]).fill is None
    with pytest.raises(ValueError, match="did you mean 'rotation'"):
        replace_from_strings(config, ["rotaton=3"])


def test_pixels_of_another_kind_are_refused(pixels):
    with pytest.raises(TypeError, match="must be uint8"):
        augment(pixels.astype(np.float32), ids(pixels), 0, config=Augmentation(), size=SIZE)
    with pytest.raises(ValueError, match=r"expected pixels \(B, H, W, 3\) and ids \(B,\)"):
        augment(pixels, ids(pixels)[:2], 0, config=Augmentation(), size=SIZE)


def test_the_sheet(tmp_path):
    out = tmp_path / "sheet.png"
    arguments = ["augment-sheet", "examples/photos", "--preset", "as_coded", "--size", "32", "--margin", "8"]
    result = CliRunner().invoke(main, [*arguments, "--columns", "3", "--rows", "2", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "SOURCES.md" in result.output  # named, not hidden
    image = np.asarray(Image.open(out))
    assert image.shape == (2 * 32 + 4, 4 * 32 + 3 * 4, 3)
    assert (image[32:36] == 255).all()
    canvas = Preprocessing(40, "shortest", "bicubic", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
    first = load_pixels("examples/photos/astronauta.jpg", canvas, name="astronauta")
    np.testing.assert_array_equal(image[:32, :32], first[4:-4, 4:-4])
    assert (image[:32, 36:68] != image[:32, :32]).any()


def test_a_sheet_of_nothing(tmp_path):
    result = CliRunner().invoke(main, ["augment-sheet", str(tmp_path)])
    assert result.exit_code == 1
    assert "no photograph that can be read" in result.output
    wrong = CliRunner().invoke(main, ["augment-sheet", "examples/photos", "--set", "hu=1"])
    assert wrong.exit_code == 1
    assert "did you mean 'hue'" in wrong.output

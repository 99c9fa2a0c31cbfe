"""Pixels of foreign checkpoints against transformers' image processors on Pillow and open_clip's transforms."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from support import PHOTOS
from support.reference import transformers

from clipita.convert.layouts.preprocessor_config import open_clip_preprocessing, preprocessing_of
from clipita.errors import CheckpointError
from clipita.images.pixels import Preprocessing, load_pixels

DEFAULT = Preprocessing(40, "shortest", "bicubic", (127.0, 127.0, 127.0), (128.0, 128.0, 128.0))


def photograph(width: int, height: int, mode: str = "RGB") -> Image.Image:
    photo = Image.open(PHOTOS / "gatto.jpg").convert("RGB").resize((width, height))
    if mode == "RGBA":
        photo.putalpha(Image.linear_gradient("L").resize((width, height)))
    return photo.convert(mode)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(photograph(90, 61), "JPEG", exif=exif)


IMAGES = {
    **{path.name: path.read_bytes() for path in sorted(PHOTOS.glob("*.jpg"))},
    "portrait": encoded(photograph(53, 131), "PNG"),
    "landscape, odd margins": encoded(photograph(131, 84), "PNG"),
    "even": encoded(photograph(80, 80), "PNG"),
    "smaller": encoded(photograph(17, 23), "PNG"),
    "1 x 300": encoded(photograph(1, 300), "PNG"),
    "300 x 1": encoded(photograph(300, 1), "PNG"),
    "1 x 1": encoded(photograph(1, 1), "PNG"),
    "RGBA": encoded(photograph(83, 61, "RGBA"), "PNG"),
    "grey": encoded(photograph(83, 61, "L"), "PNG"),
    "CMYK": encoded(photograph(83, 61, "CMYK"), "JPEG"),
    "palette": encoded(photograph(83, 61).quantize(), "GIF"),
    "EXIF": rotated(),
}


def opened(data: bytes) -> Image.Image:
    """As `transformers.image_utils.load_image` opens it."""
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


def towers_input(preprocessing: Preprocessing, pixels: np.ndarray) -> np.ndarray:
    return ((pixels.astype(np.float64) - preprocessing.mean) / preprocessing.std).transpose(2, 0, 1)


PROCESSORS: list[tuple[str, dict[str, Any]]] = [
    ("CLIPImageProcessor", {"size": {"shortest_edge": 40}, "crop_size": {"height": 40, "width": 40}}),
    ("CLIPImageProcessor", {"size": {"shortest_edge": 48}, "crop_size": {"height": 39, "width": 39}}),
    ("CLIPImageProcessor", {"size": 41, "crop_size": 40, "resample": 2}),
    ("CLIPImageProcessor", {"size": {"shortest_edge": 40}, "crop_size": 40, "resample": 0, "do_normalize": False}),
    ("ViTImageProcessor", {"size": {"height": 40, "width": 40}}),
    ("ViTImageProcessor", {"size": {"height": 40, "width": 40}, "image_mean": [0.485, 0.456, 0.406], "resample": 3}),
    ("SiglipImageProcessor", {"size": {"height": 40, "width": 40}}),
    ("SiglipImageProcessor", {"size": {"height": 40, "width": 40}, "resample": 2, "do_rescale": False}),
]


@pytest.mark.parametrize(("name", "settings"), PROCESSORS)
@pytest.mark.parametrize("saved_name", ["{}", "{}Fast"])
def test_pixels_are_those_of_transformers(tmp_path: Path, name: str, settings: dict[str, Any], saved_name: str) -> None:
    if settings.get("do_rescale") is False:  # then the mean is one of 0..255
        settings = {**settings, "image_mean": [127.5] * 3, "image_std": [64.0] * 3}
    processor = getattr(transformers, f"{name}Pil")(**settings)
    processor.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "preprocessor_config.json").read_text())
    config["image_processor_type"] = saved_name.format(name)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    preprocessing = preprocessing_of(tmp_path, default=DEFAULT)
    for kind, data in IMAGES.items():
        pixels = load_pixels(data, preprocessing, name=kind, exact=True)
        raw = processor(opened(data), do_normalize=False, do_rescale=False, return_tensors="np")["pixel_values"][0]
        assert pixels.shape == (preprocessing.image_size, preprocessing.image_size, 3)
        np.testing.assert_array_equal(pixels.transpose(2, 0, 1), raw, err_msg=kind)
        normalised = processor(opened(data), return_tensors="np")["pixel_values"][0]
        np.testing.assert_allclose(towers_input(preprocessing, pixels), normalised, atol=2e-5, err_msg=kind)


@pytest.mark.parametrize(
    "old",
    [
        {"feature_extractor_type": "CLIPFeatureExtractor", "size": 40, "crop_size": 40, "resample": 3},
        {"size": 40, "crop_size": 40, "do_center_crop": True, "do_resize": True, "do_normalize": True},
    ],
)
def test_files_of_early_versions(tmp_path: Path, old: dict[str, Any]) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))
    expected = transformers.CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size=40)
    preprocessing = preprocessing_of(tmp_path, default=DEFAULT)
    for kind, data in IMAGES.items():
        reference = expected(opened(data), do_normalize=False, do_rescale=False, return_tensors="np")["pixel_values"][0]
        np.testing.assert_array_equal(
            load_pixels(data, preprocessing, name=kind, exact=True).transpose(2, 0, 1), reference
        )
    (tmp_path / "preprocessor_config.json").write_text('{"feature_extractor_type": "ViTFeatureExtractor", "size": 40}')
    assert preprocessing_of(tmp_path, default=DEFAULT) == Preprocessing(
        40, "squash", "bilinear", (127.5,) * 3, (127.5,) * 3, crop="floor", transparency="drop"
    )


def test_the_file_of_transformers_5(tmp_path: Path) -> None:
    # It writes the settings of its processors into one file, and reads that one first.
    tokenizer = transformers.BertTokenizer(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4})
    images = transformers.CLIPImageProcessorPil(size={"shortest_edge": 44}, crop_size=33)
    transformers.VisionTextDualEncoderProcessor(images, tokenizer).save_pretrained(tmp_path)
    assert not (tmp_path / "preprocessor_config.json").exists()
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(CLIP))
    preprocessing = preprocessing_of(tmp_path, default=DEFAULT)
    assert (preprocessing.image_size, preprocessing.short_side) == (33, 44)
    (tmp_path / "processor_config.json").write_text('{"processor_class": "CLIPProcessor"}')
    assert preprocessing_of(tmp_path, default=DEFAULT).image_size == 40
    (tmp_path / "processor_config.json").write_text('{"image_processor": [1]}')
    with pytest.raises(CheckpointError, match=r"processor_config\.json.*must be an object, but it is a list"):
        preprocessing_of(tmp_path, default=DEFAULT)


def test_without_a_file_the_default_holds(tmp_path: Path) -> None:
    assert preprocessing_of(tmp_path, default=DEFAULT) is DEFAULT


def round_half_even(value: float) -> int:
    return int(np.rint(value))


def open_clip_transform(image: Image.Image, size: int, mode: str, fill: int) -> np.ndarray:
    """`open_clip.transform.image_transform`, with torchvision's Resize and CenterCrop written out."""
    width, height = image.size
    if mode == "squash":
        return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
    if mode == "shortest":
        scale = size / min(width, height)
        shape = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
        assert scale > 0
        left, top = round_half_even((shape[0] - size) / 2), round_half_even((shape[1] - size) / 2)
        resized = image.resize(shape, Image.Resampling.BICUBIC)
        return np.asarray(resized.crop((left, top, left + size, top + size)))
    ratio = max(height / size, width / size)
    resized = np.asarray(image.resize((max(1, round(width / ratio)), max(1, round(height / ratio))), 3))
    square = np.full((size, size, 3), fill, np.uint8)
    top, left = (size - resized.shape[0]) // 2, (size - resized.shape[1]) // 2
    square[top : top + resized.shape[0], left : left + resized.shape[1]] = resized
    return square


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_open_clip_settings(mode: str) -> None:
    settings = {"size": 40, "mode": "RGB", "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    settings |= {"resize_mode": mode, "fill_color": 7}
    preprocessing = open_clip_preprocessing(settings, image_size=40, where="open_clip_config.json")
    assert preprocessing.mean == (127.5,) * 3
    for kind, data in IMAGES.items():
        expected = open_clip_transform(opened(data), 40, mode, 7)
        np.testing.assert_array_equal(load_pixels(data, preprocessing, name=kind, exact=True), expected, err_msg=kind)


def test_open_clip_defaults() -> None:
    preprocessing = open_clip_preprocessing({}, image_size=32, where="open_clip_config.json")
    assert (preprocessing.resize, preprocessing.interpolation, preprocessing.crop) == ("shortest", "bicubic", "round")
    assert preprocessing.mean[0] == pytest.approx(0.48145466 * 255)


CLIP = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 40}, "crop_size": 40}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_processor_type": "BlipImageProcessor"}, "'image_processor_type' is 'BlipImageProcessor'"),
        ({"image_processor_type": ["CLIPImageProcessor"]}, "'image_processor_type' is"),
        ({"resample": 1}, r"'resample' is '1', expected 0 \(nearest\)"),
        ({"resample": [3]}, "'resample' is"),
        ({"do_resize": False}, "'do_resize' is 'False'"),
        ({"do_center_crop": False}, "'crop_size' is 'None'"),
        ({"image_processor_type": "SiglipImageProcessor", "do_center_crop": True, "crop_size": None}, "'crop_size' is"),
        ({"image_mean": [10**400, 0.5, 0.5]}, "'image_mean' is"),
        ({"crop_size": {"height": 40, "width": 30}}, "'crop_size' is"),
        ({"size": {"longest_edge": 40}}, "'size' is"),
        ({"size": {"height": 40, "width": 30}}, "'size' is"),
        ({"size": {"shortest_edge": 30}}, "short_side must be 40 or more, but it is 30"),
        ({"size": 10**9, "crop_size": 10**9}, "sides from 1 to 4096 pixels"),
        ({"size": "40"}, "'size' is '40'"),
        ({"rescale_factor": 0}, "'rescale_factor' is '0'"),
        ({"rescale_factor": "1/255"}, "'rescale_factor' is '1/255'"),
        ({"image_mean": [0.5, 0.5]}, "'image_mean' is"),
        ({"image_std": [0.5, 0.5, 0]}, "std must be 3 numbers above 0"),
        ({"do_pad": True}, "'do_pad' is 'True', expected 'false'|expected false"),
        ({"do_solarize": True}, "'do_solarize' is 'True'.*does not know this setting"),
    ],
)
def test_what_cannot_be_followed_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**CLIP, **change}))
    with pytest.raises(CheckpointError, match=message) as caught:
        preprocessing_of(tmp_path, default=DEFAULT)
    assert "preprocessor_config.json" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 41}, "'size' is '41', expected 40"),
        ({"mode": "BGR"}, "'mode' is 'BGR'"),
        ({"resize_mode": "stretch"}, "'resize' must be"),
        ({"interpolation": "area"}, "'interpolation' must be"),
        ({"colour": "grey"}, r"not known: \['colour'\]"),
    ],
)
def test_what_open_clip_would_not_know_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        open_clip_preprocessing(settings, image_size=40, where="open_clip_config.json")

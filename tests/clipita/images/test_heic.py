"""HEIC, which phones write: read where pillow-heif is installed, whoever registered it."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from support import PHOTOS
from support.reference import pillow_heif

from clipita.errors import ImageError
from clipita.images.pixels import Preprocessing, load_pixels

PHOTO = PHOTOS / "gatto.jpg"
SQUARE = Preprocessing(64, "shortest", "bicubic", (127.0,) * 3, (128.0,) * 3)


def heic(image: Image.Image, *, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, quality=95, exif=exif.tobytes())
    return file.getvalue()


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.open(PHOTO).convert("RGB")


def test_a_photograph_in_heic_is_read(photo: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "a.heic"
    path.write_bytes(heic(photo))
    expected = load_pixels(photo, SQUARE, name="a").astype(int)
    for image in (path, path.read_bytes()):
        assert np.abs(load_pixels(image, SQUARE, name="a") - expected).mean() < 3


def test_it_is_turned_upright_once(photo: Image.Image) -> None:
    turned = photo.transpose(Image.Transpose.ROTATE_90)  # as a camera that was held on its side stores it
    expected = load_pixels(photo, SQUARE, name="a").astype(int)
    assert np.abs(load_pixels(heic(turned, orientation=6), SQUARE, name="a") - expected).mean() < 3


def test_one_that_is_cut_is_refused(photo: Image.Image) -> None:
    data = heic(photo)
    for kept in (20, 200, len(data) // 2):
        with pytest.raises(ImageError):
            load_pixels(data[:kept], SQUARE, name="a")


def test_without_pillow_heif_the_error_says_what_to_install(photo: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "a.heic"
    path.write_bytes(heic(photo))
    code = f"""
import sys
sys.modules["pillow_heif"] = None  # as if it were not installed
import clipita
try:
    clipita.encode_image({str(path)!r})
except clipita.ImageError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "If it is HEIC: pip install 'clipita[heic]' reads it." in done.stdout

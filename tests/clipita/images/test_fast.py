"""The default way to pixels against `exact=True`: fewer are decoded, only the crop is resized, and nearly equal."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile
from support import PHOTOS

import clipita
from clipita.convert.rewrite import rewrite
from clipita.images.pixels import Preprocessing, load_pixels
from clipita.loading.open import open_model

FILES = sorted(PHOTOS.glob("*.jpg"))
SIZE = 32
ALL_OF_IT = (127.5,) * 3


def preprocessing(resize: str = "shortest", size: int = SIZE) -> Preprocessing:
    return Preprocessing(size, resize, "bicubic", ALL_OF_IT, ALL_OF_IT)  # type: ignore[arg-type]


def smooth(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Waves of some 20 pixels of the result, and a slope: wherever it is shifted by a pixel, levels differ by 10."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    waves = [np.sin(9 * x + 2 * y + 1), np.sin(8 * y - 3 * x), x - y]
    image = Image.fromarray(np.stack([128 + 100 * wave for wave in waves], -1).astype(np.uint8))
    return image.convert(mode)


def jpeg(image: Image.Image, orientation: int = 1, **options: object) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, exif=exif, **options)  # type: ignore[arg-type]
    return file.getvalue()


def difference(data: bytes, prepared: Preprocessing) -> int:
    fast, exact = (load_pixels(data, prepared, name="a", exact=flag).astype(int) for flag in (False, True))
    return int(np.abs(fast - exact).max())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("width", "height"), [(400, 300), (401, 299), (299, 401), (785, 777), (601, 1201), (193, 193)])
@pytest.mark.parametrize("resize", ["shortest", "longest", "squash"])
def test_nothing_is_shifted(width: int, height: int, orientation: int, resize: str) -> None:
    # 401 pixels by 4 are 101, the last of which shows a quarter of its width. Taken for a whole one, it
    # would shift the picture.
    assert difference(jpeg(smooth(width, height), orientation), preprocessing(resize)) <= 3


@pytest.mark.parametrize("mode", ["L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_other_jpegs(mode: str, progressive: bool) -> None:
    assert difference(jpeg(smooth(600, 450, mode), progressive=progressive), preprocessing()) <= 3


def test_only_so_many_pixels_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    load = ImageFile.ImageFile.load

    def watch(self: ImageFile.ImageFile) -> object:
        decoded.append(self.width)
        return load(self)

    sides = (3 * SIZE, 6 * SIZE - 1, 6 * SIZE, 12 * SIZE, 24 * SIZE + 1, 48 * SIZE)
    files = [jpeg(smooth(side, side)) for side in sides]
    monkeypatch.setattr(ImageFile.ImageFile, "load", watch)
    for data, width in zip(files, (96, 191, 96, 96, 97, 192), strict=True):
        decoded.clear()
        load_pixels(data, preprocessing(), name="a")
        assert decoded[0] == width


def test_an_opened_image_of_the_caller_keeps_its_pixels() -> None:
    image = Image.open(io.BytesIO(jpeg(smooth(1000, 900))))
    load_pixels(image, preprocessing(), name="a")
    assert image.size == (1000, 900)


@pytest.mark.parametrize("resize", ["shortest", "longest", "squash"])
def test_arrays_differ_by_a_level_at_most(resize: str) -> None:
    for shape in ((300, 400, 3), (401, 299, 3), (90, 700)):
        array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        fast, exact = (load_pixels(array, preprocessing(resize), name="a", exact=flag).astype(int) for flag in (0, 1))
        assert np.abs(fast - exact).max() <= 1


def test_embeddings_of_photographs_stay(tmp_path: Path) -> None:
    rewrite(open_model("clipita-mini"), tmp_path / "fp32", precision="fp32")
    # Of two pictures that are nearly the same, products in integers are rounded apart.
    for source, least in ((tmp_path / "fp32", 0.999), ("clipita-mini", 0.996)):
        fast, exact = clipita.load(source), clipita.load(source, exact=True)
        for path in FILES:
            file = io.BytesIO()
            photo = Image.open(path)
            photo.resize((photo.width * 4, photo.height * 4), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
            cosine = fast.encode_image(file.getvalue()) @ exact.encode_image(file.getvalue())
            assert cosine >= least, (source, path.name)

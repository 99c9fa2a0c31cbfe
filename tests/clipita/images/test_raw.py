"""Raw files of cameras: their previews are read where rawpy is installed, and what they show is developed otherwise."""

import datetime
import io
import struct
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import PHOTOS
from support.reference import rawpy as _rawpy  # type: ignore[attr-defined] # noqa: F401

from clipita.errors import ImageError
from clipita.images.facts import read_facts
from clipita.images.photo_files import find_photos
from clipita.images.pixels import Preprocessing, load_pixels

SQUARE = Preprocessing(64, "shortest", "bicubic", (127.0,) * 3, (128.0,) * 3)
_SIZES = {"B": 1, "s": 1, "H": 2, "I": 4, "i": 4}
_TYPES = {"B": 1, "s": 2, "H": 3, "I": 4, "i": 10}
_TAKEN = "2023:08:14 18:30:00"

Tags = Mapping[int, tuple[str, object]]


def dng(picture: Image.Image, *, preview: Image.Image | None, orientation: int = 1) -> bytes:
    """Return a DNG as a camera writes it: the values of a sensor under red, green and blue, and a preview in JPEG."""
    pixels = np.asarray(picture, np.float64)[: picture.height // 2 * 2, : picture.width // 2 * 2] / 255
    sensor = np.empty(pixels.shape[:2], "<u2")  # in linear light, 14 bits
    for row, column, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        sensor[row::2, column::2] = 16383 * pixels[row::2, column::2, channel] ** 2.2
    height, width = sensor.shape
    whole: dict[int, tuple[str, object]] = {
        254: ("I", 0), 256: ("I", width), 257: ("I", height), 258: ("H", 16), 259: ("H", 1), 262: ("H", 32803),
        274: ("H", orientation), 277: ("H", 1), 278: ("I", height), 306: ("s", _TAKEN), 33421: ("H", (2, 2)),
        33422: ("B", (0, 1, 1, 2)), 50706: ("B", (1, 4, 0, 0)), 50708: ("s", "clipita"), 50717: ("I", 16383),
        50721: ("i", (32404, 10000, -15371, 10000, -4985, 10000, -9692, 10000, 18760, 10000, 415, 10000, 556, 10000,
                      -2040, 10000, 10572, 10000)),
    }  # fmt: skip
    if preview is None:
        return _tiff([(whole, sensor.tobytes())])
    file = io.BytesIO()
    preview.save(file, "JPEG", quality=95)
    small: dict[int, tuple[str, object]] = {
        254: ("I", 1), 256: ("I", preview.width), 257: ("I", preview.height), 258: ("H", (8, 8, 8)), 259: ("H", 7),
        262: ("H", 6), 277: ("H", 3), 278: ("I", preview.height),
    }  # fmt: skip
    return _tiff([(whole, sensor.tobytes()), (small, file.getvalue())])


def _tiff(pictures: list[tuple[Tags, bytes]]) -> bytes:
    """Return a TIFF with a directory for each picture, one after the other."""
    written = bytearray(b"II*\0\0\0\0\0")
    link = 4  # where the place of the next directory is written
    for tags, data in pictures:
        place = len(written)
        written += data + b"\0" * (len(data) % 2)
        entries = sorted({**tags, 273: ("I", place), 279: ("I", len(data))}.items())
        struct.pack_into("<I", written, link, len(written))
        beyond = len(written) + 2 + 12 * len(entries) + 4
        directory, values = struct.pack("<H", len(entries)), b""
        for tag, (kind, value) in entries:
            numbers = list(str(value).encode() + b"\0") if kind == "s" else value
            listed = list(numbers) if isinstance(numbers, (list, tuple)) else [numbers]
            packed = struct.pack(f"<{len(listed)}{'B' if kind == 's' else kind}", *listed)
            count = len(listed) // 2 if kind == "i" else len(listed)
            if len(packed) > 4:
                packed, values = struct.pack("<I", beyond + len(values)), values + packed + b"\0" * (len(packed) % 2)
            directory += struct.pack("<HHI", tag, _TYPES[kind], count) + packed.ljust(4, b"\0")
        link = len(written) + len(directory)
        written += directory + b"\0\0\0\0" + values
    return bytes(written)


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.open(PHOTOS / "gatto.jpg").convert("RGB")


def seen(image: Path | Image.Image) -> np.ndarray:
    return load_pixels(image, SQUARE, name="a").astype(int)


def test_the_preview_is_read(photo: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "a.DNG"
    path.write_bytes(dng(Image.new("RGB", (800, 600), "blue"), preview=photo))
    assert np.abs(seen(path) - seen(photo)).mean() < 3
    assert read_facts(path, "a") == (*photo.size, datetime.datetime(2023, 8, 14, 18, 30))


def test_it_is_turned_upright(photo: Image.Image, tmp_path: Path) -> None:
    turned = photo.transpose(Image.Transpose.ROTATE_90)  # as a camera that was held on its side stores it
    path = tmp_path / "a.dng"
    path.write_bytes(dng(turned, preview=turned, orientation=6))
    assert np.abs(seen(path) - seen(photo)).mean() < 3
    assert read_facts(path, "a")[:2] == photo.size


@pytest.mark.parametrize("size", [None, (160, 120)])
def test_without_a_preview_of_use_the_sensor_is_developed(
    photo: Image.Image, size: tuple[int, int] | None, tmp_path: Path
) -> None:
    path = tmp_path / "a.dng"
    path.write_bytes(dng(photo, preview=None if size is None else Image.new("RGB", size, "blue")))
    correlation = np.corrcoef(seen(path).ravel(), seen(photo).ravel())[0, 1]
    assert correlation > 0.8  # with another white, and more contrast
    assert read_facts(path, "a").taken == datetime.datetime(2023, 8, 14, 18, 30)


def test_one_that_is_cut_or_none_is_refused(photo: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "a.nef"
    data = dng(photo, preview=photo)
    for kept in (0, 20, 1000, len(data) // 2):
        path.write_bytes(data[:kept])
        with pytest.raises(ImageError, match=r"a\.nef"):
            load_pixels(path, SQUARE, name=str(path))


def test_folders_are_searched_for_them(photo: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.CR2").write_bytes(dng(photo, preview=photo))
    assert find_photos(tmp_path).keys == ["a.CR2"]
    photo.save(tmp_path / "a.jpg")  # a camera that writes both, or a picture that was made of it
    found = find_photos(tmp_path)
    assert (found.keys, found.counts()) == (["a.jpg"], {"raw_beside": 1})
    assert found.describe() == "Left aside: 1 raw beside its picture (.cr2)."
    (tmp_path / "a.jpg").unlink()
    monkeypatch.setitem(sys.modules, "rawpy", None)  # as if it were not installed
    found = find_photos(tmp_path)
    assert (found.keys, found.counts()) == ([], {"raw": 1})
    assert "1 raw (.cr2): pip install 'clipita[raw]' reads their previews" in found.describe()

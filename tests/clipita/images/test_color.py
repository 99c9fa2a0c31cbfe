"""Colors that are stored in another space than sRGB, with the ICC profile that says so."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms
from support import PHOTOS

from clipita.images.pixels import Preprocessing, load_picture, load_pixels

PHOTO = PHOTOS / "astronauta.jpg"
SQUARE = Preprocessing(224, "shortest", "bicubic", (127.0,) * 3, (128.0,) * 3)

# The primaries of red, green and blue (X, Y, Z at D50) and the exponent of the curve. Source: the profiles of ICC's
# registry, and Adobe RGB (1998) Color Image Encoding, 4.3.
SPACES = {
    "Display P3": (((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)), 2.2),
    "Adobe RGB": (((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)), 563 / 256),
    "ProPhoto": (((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491)), 1.8),
}


def icc_profile(primaries: tuple[tuple[float, ...], ...], gamma: float, *, color: bytes = b"RGB ") -> bytes:
    """The bytes of a profile of matrix and curves, or of a curve alone for b"GRAY"; ICC.1:2001-04."""

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(values: tuple[float, ...]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = {
        b"desc": (b"desc\0\0\0\0" + struct.pack(">I", 2) + b"x\0" + b"\0" * 78).ljust(92, b"\0"),
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
        b"wtpt": xyz((0.9642, 1.0, 0.8249)),
    }
    if color == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        tags |= {name: xyz(values) for name, values in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    return profile_of(tags, b"mntr", color, b"XYZ ")


def profile_of(tags: dict[bytes, bytes], device: bytes, color: bytes, connection: bytes) -> bytes:
    start = 132 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    fixed = struct.pack(">3i", 63190, 65536, 54061)  # D50: 0.9642, 1, 0.8249
    head = struct.pack(">I", start + len(body)) + b"\0\0\0\0\2\x40\0\0" + device + color + connection
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28
    return (head + fixed).ljust(128, b"\0") + table + body


def encoded(image: Image.Image, profile: bytes, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, icc_profile=profile, **options)
    return file.getvalue()


def in_space(image: Image.Image, profile: bytes) -> Image.Image:
    """The same colors of an sRGB image, as numbers of the profile's space."""
    target = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    moved = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), target, 1, "RGB")
    assert moved is not None
    return moved


def difference(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> float:
    return float(np.abs(first.astype(int) - second.astype(int)).mean())


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.open(PHOTO).convert("RGB")


@pytest.mark.parametrize("space", SPACES)
def test_the_same_colors_in_another_space_give_the_same_pixels(photo: Image.Image, space: str) -> None:
    profile = icc_profile(*SPACES[space])
    stored = in_space(photo, profile)
    expected = load_pixels(photo, SQUARE, name="a")
    ignored = difference(load_pixels(encoded(stored, b""), SQUARE, name="a"), expected)
    read = difference(load_pixels(encoded(stored, profile), SQUARE, name="a"), expected)
    assert read < 1.0
    assert ignored > 4 * read


def test_large_pictures_are_converted_after_they_were_shrunk(photo: Image.Image) -> None:
    large = photo.resize((2000, 2000), Image.Resampling.BICUBIC)
    profile = icc_profile(*SPACES["Display P3"])
    expected = load_pixels(large, SQUARE, name="a")
    for form, options in (("PNG", {"compress_level": 1}), ("JPEG", {"quality": 97, "subsampling": 0})):
        data = encoded(in_space(large, profile), profile, form, **options)
        assert difference(load_pixels(data, SQUARE, name="a"), expected) < 1.5


def test_path_bytes_and_image_give_the_same(photo: Image.Image, tmp_path: Path) -> None:
    profile = icc_profile(*SPACES["Adobe RGB"])
    path = tmp_path / "a.png"
    path.write_bytes(encoded(in_space(photo, profile), profile))
    expected = load_pixels(path, SQUARE, name="a")
    np.testing.assert_array_equal(load_pixels(path.read_bytes(), SQUARE, name="a"), expected)
    with Image.open(path) as image:
        np.testing.assert_array_equal(load_pixels(image, SQUARE, name="a"), expected)


def test_pictures_of_whole_size_are_converted_too(photo: Image.Image) -> None:
    profile = icc_profile(*SPACES["Display P3"])
    picture, size = load_picture(encoded(in_space(photo, profile), profile), max_side=600, name="a")
    assert size == photo.size
    assert difference(np.asarray(picture), np.asarray(photo)) < 1.5


def test_transparency_is_laid_on_white_in_any_space(photo: Image.Image) -> None:
    profile = icc_profile(*SPACES["ProPhoto"])
    stored = in_space(photo, profile)
    stored.putalpha(0)
    assert load_pixels(encoded(stored, profile), SQUARE, name="a").min() >= 254


def test_gray_with_a_curve_of_its_own() -> None:
    gray = Image.fromarray(np.full((64, 64), 100, np.uint8))
    data = encoded(gray, icc_profile((), 1.0, color=b"GRAY"))
    # A linear 100 of 255 is 0.392, in sRGB 1.055 x 0.392^(1 / 2.4) - 0.055 = 0.659: 168 of 255.
    assert set(np.unique(load_pixels(data, SQUARE, name="a")).tolist()) <= {167, 168, 169}


def test_profiles_of_srgb_change_nothing(photo: Image.Image) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    np.testing.assert_array_equal(
        load_pixels(encoded(photo, srgb), SQUARE, name="a"), load_pixels(photo, SQUARE, name="a")
    )


def test_exact_ignores_profiles_as_torchvision_does(photo: Image.Image) -> None:
    data = encoded(photo, icc_profile(*SPACES["ProPhoto"]))
    np.testing.assert_array_equal(
        load_pixels(data, SQUARE, name="a", exact=True), load_pixels(photo, SQUARE, name="a", exact=True)
    )


BROKEN = {
    "empty": b"",
    "not one": b"no profile" * 40,
    "cut": icc_profile(*SPACES["Display P3"])[:200],
    "of gray": icc_profile((), 1.0, color=b"GRAY"),
    "too large": icc_profile(*SPACES["Display P3"]) + bytes(5 << 20),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_profile_that_cannot_be_used_is_ignored(photo: Image.Image, what: str) -> None:
    data = encoded(photo, BROKEN[what], "TIFF")
    np.testing.assert_array_equal(load_pixels(data, SQUARE, name="a"), load_pixels(photo, SQUARE, name="a"))


def cmyk_profile() -> bytes:
    """A printing press on which cyan alone is a gray of L* = 50, in a table of two steps for each ink; ICC.1, 6.5.7."""
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    table += bytes(range(256)) * 4
    for inks in range(16):  # of cyan, magenta, yellow, black: the first changes slowest
        lightness = {0: 255, 8: 128}.get(inks, 0)
        table += bytes([lightness, 128, 128])
    table += bytes(range(256)) * 3
    tags = {
        b"desc": (b"desc\0\0\0\0" + struct.pack(">I", 2) + b"x\0" + b"\0" * 78).ljust(92, b"\0"),
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
        b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061),
        b"A2B0": table + b"\0" * (-len(table) % 4),
    }
    return profile_of(tags, b"prtr", b"CMYK", b"Lab ")


def test_cmyk_is_converted_by_its_profile() -> None:
    cyan = Image.new("CMYK", (64, 64), (255, 0, 0, 0))
    for form in ("TIFF", "JPEG"):
        plain = load_pixels(encoded(cyan, b"", form), SQUARE, name="a").mean((0, 1))
        assert plain[0] < 10 < 240 < plain[1]
        marked = load_pixels(encoded(cyan, cmyk_profile(), form), SQUARE, name="a")
        assert np.abs(marked.astype(int) - 119).max() <= 3  # L* = 50 is a luminance of 0.184, in sRGB 119 of 255


def test_cmyk_with_a_profile_of_another_kind_is_as_without(photo: Image.Image) -> None:
    cmyk = photo.resize((64, 64)).convert("CMYK")
    with_profile, without = encoded(cmyk, icc_profile(*SPACES["Display P3"]), "TIFF"), encoded(cmyk, b"", "TIFF")
    np.testing.assert_array_equal(load_pixels(with_profile, SQUARE, name="a"), load_pixels(without, SQUARE, name="a"))

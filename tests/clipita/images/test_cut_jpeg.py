"""JPEG files without their last bytes: read if no pixel is missing, refused if one is."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import PHOTOS

from clipita.errors import ImageError
from clipita.images.jpeg import endings
from clipita.images.pixels import Preprocessing, load_pixels

PHOTO = PHOTOS / "gatto.jpg"
SQUARE = Preprocessing(224, "shortest", "bicubic", (127.0,) * 3, (128.0,) * 3)
KINDS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "gray": {},
    "restarts": {"restart_marker_rows": 1},
    "4:4:4, optimized": {"subsampling": 0, "optimize": True},
    "large, which is decoded in fewer pixels": {},
}


def jpeg(kind: str) -> bytes:
    image = Image.open(PHOTO).convert("L" if kind == "gray" else "RGB")
    if kind.startswith("large"):
        image = image.resize((1804, 1200))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92, **KINDS[kind])
    return file.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("missing", [1, 2])
def test_without_its_end_mark_it_is_read_whole(kind: str, missing: int, tmp_path: Path) -> None:
    data = jpeg(kind)
    assert data.endswith(b"\xff\xd9")
    expected = load_pixels(data, SQUARE, name="a")
    np.testing.assert_array_equal(load_pixels(data[:-missing], SQUARE, name="a"), expected)
    path = tmp_path / "a.jpg"
    path.write_bytes(data[:-missing])
    np.testing.assert_array_equal(load_pixels(path, SQUARE, name="a"), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.9, 0.98])
def test_a_part_of_a_picture_is_refused(kind: str, kept: float) -> None:
    data = jpeg(kind)
    with pytest.raises(ImageError, match="'a' is truncated"):
        load_pixels(data[: int(len(data) * kept)], SQUARE, name="'a'")


@pytest.mark.parametrize("kind", ["baseline", "gray", "restarts", "4:4:4, optimized"])
def test_wherever_it_is_cut_what_is_read_is_whole(kind: str) -> None:
    """Of the last bytes, some may hold nothing that the square shows; but what is read is what the whole file gives."""
    data = jpeg(kind)
    expected = load_pixels(data, SQUARE, name="a")
    refused = 0
    for missing in range(1, 60):
        try:
            found = load_pixels(data[:-missing], SQUARE, name="a")
        except ImageError:
            refused += 1
        else:
            assert np.abs(found.astype(int) - expected.astype(int)).max() <= 2, missing
    assert refused > 30


def test_a_progressive_file_without_its_last_scans_is_a_part() -> None:
    data = jpeg("progressive")
    last_scan = data.rindex(b"\xff\xda")
    tables = data.rindex(b"\xff\xc4", 0, last_scan)  # of the last scan
    for cut in (last_scan, tables):
        assert endings(data[:cut]) is None
        with pytest.raises(ImageError, match="truncated"):
            load_pixels(data[:cut], SQUARE, name="a")


def test_what_is_no_jpeg_or_has_its_end_is_left_alone() -> None:
    data = jpeg("baseline")
    assert endings(data) is None
    assert endings(data + bytes(10)) is None  # cards and cameras pad with zeros
    assert endings(b"\x89PNG" + data[4:-2]) is None
    assert endings(b"\xff\xd8") is None
    assert endings(b"\xff\xd8" + b"\xff" * 3_000_000) is None  # in no time
    assert endings(b"\xff\xd8\xff\xda\x00\x0c\x03\x01") is None

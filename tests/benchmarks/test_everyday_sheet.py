"""The sheet of thirty queries: frames say what is right, and the file is no larger than it may be."""

from pathlib import Path

import numpy as np
import pytest
from clipita_train.evaluate.everyday.scores import ArchiveSearch
from clipita_train.evaluate.everyday.sets import Query
from PIL import Image, ImageColor

from benchmarks.quality.everyday_sheet import FIRST, FRAME, GREEN, RED, SIDE, TITLE, YELLOW, compressed, draw


def test_frames_tell_relevant_acceptable_and_wrong_photographs_apart(tmp_path: Path) -> None:
    names = tuple("abcdef")
    for name in names:
        Image.new("RGB", (60, 40), "white").save(tmp_path / f"{name}.png")
    query = Query("un papà", ("b",), ("a",))
    cosines = np.array([[0.5, 0.9, 0.1, 0.2, 0.3, 0.4]])  # b a f e d
    relevant, acceptable = np.array([[False, True, *[False] * 4]]), np.array([[True, *[False] * 5]])
    found = ArchiveSearch((query,), names, cosines, relevant, acceptable)
    sheet = draw(found, {name: tmp_path / f"{name}.png" for name in names}, "tiny")
    frames = [sheet.getpixel((place * SIDE + FRAME // 2, 2 * TITLE + SIDE // 2)) for place in range(FIRST)]
    assert frames == [ImageColor.getrgb(color) for color in (GREEN, YELLOW, RED, RED, RED)]


def test_the_best_quality_that_fits_is_taken() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))
    largest = len(compressed(noise))
    smaller = compressed(noise, largest // 2)
    assert len(smaller) <= largest // 2
    with pytest.raises(ValueError, match=r"takes more than 100 bytes"):
        compressed(noise, 100)

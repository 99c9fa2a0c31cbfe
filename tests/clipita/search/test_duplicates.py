"""Copies of a picture are grouped, in whatever way they were saved; pictures that resemble each other are not."""

import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageEnhance
from support import PHOTOS

from clipita.search.index import Index


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foto")
    for path in PHOTOS.glob("*.jpg"):
        shutil.copy(path, folder)
    for name in ("gatto", "razzo"):
        with Image.open(PHOTOS / f"{name}.jpg") as picture:
            width, height = picture.size
            picture.resize((width * 2, height * 2)).save(folder / f"{name}-grande.png")
            picture.save(folder / f"{name}-brutta.jpg", quality=40)
            ImageEnhance.Brightness(picture).enhance(1.15).save(folder / f"{name}-chiara.jpg")
            picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / f"{name}-specchio.jpg")
    shutil.copy(PHOTOS / "caffe.jpg", folder / "caffe-copia.jpg")
    for name, color in {"viola": (128, 0, 128), "verde": (0, 128, 0)}.items():
        Image.new("RGB", (300, 300), color).save(folder / f"{name}.png")
    return folder


def test_each_picture_is_a_group_with_its_best_file_first(archive: Path) -> None:
    index = Index.open(archive)
    index.update()
    groups = {group.paths[0]: group for group in index.duplicates()}
    found = {first: set(group.paths) for first, group in groups.items()}
    for name in ("gatto", "razzo"):
        assert found.pop(f"{name}-grande.png") == {
            f"{name}{end}" for end in (".jpg", "-grande.png", "-brutta.jpg", "-chiara.jpg")
        }
    assert list(found.values()) == [{"caffe.jpg", "caffe-copia.jpg"}]
    assert [group.same_bytes for group in groups.values()].count(True) == 1


def test_a_file_that_is_gone_is_in_no_group_of_near_copies(archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "foto"
    shutil.copytree(archive, folder, ignore=shutil.ignore_patterns(".clipita"))
    index = Index.open(folder)
    index.update()
    (folder / "gatto-brutta.jpg").unlink()
    assert not any("gatto-brutta.jpg" in group.paths for group in index.duplicates())

"""Copies are found, photographs that only resemble each other stay, and development sets are never thinned out."""

from pathlib import Path

import numpy as np
import pytest
from clipita_train.data.near_duplicates.perceptual_hash import perceptual_hash
from clipita_train.data.photographs.collection import Collection
from clipita_train.data.photographs.deduplicate import deduplicate
from clipita_train.data.photographs.example import Example
from clipita_train.data.photographs.manifest import counts, read_manifest, write_manifest
from clipita_train.data.photographs.readers import CollectionItem
from PIL import Image
from support.reference import skimage

NAMES = ("astronaut", "chelsea", "coffee", "rocket", "camera", "coins", "hubble_deep_field", "immunohistochemistry")


@pytest.fixture(scope="module")
def pictures() -> dict[str, Image.Image]:
    made = {name: Image.fromarray(getattr(skimage.data, name)()) for name in NAMES}
    for picture in made.values():
        picture.thumbnail((200, 200))
    return made


@pytest.fixture
def root(tmp_path: Path, pictures: dict[str, Image.Image]) -> Path:
    for name, picture in pictures.items():
        picture.save(tmp_path / f"{name}.png")
    return tmp_path


def train(*names: str) -> list[Example]:
    return [Example(name, "somewhere", "train", "cat") for name in names]


def dev(*names: str) -> list[Example]:
    return [Example(name, "elsewhere", "dev", "cat") for name in names]


def test_different_photographs_stay(root: Path) -> None:
    examples = dev("astronaut.png", "coins.png") + train(*(f"{name}.png" for name in NAMES[1:5]))
    kept, report = deduplicate(examples, root)
    assert kept == examples
    assert str(report) == (
        "0 unreadable, 0 repeated in training, 0 training photographs that a development set has too, "
        "0 that are kept out for evaluation"
    )


@pytest.mark.parametrize("name", NAMES)
def test_copies_that_were_resized_compressed_or_converted_are_found(
    name: str, root: Path, pictures: dict[str, Image.Image]
) -> None:
    picture = pictures[name].convert("RGB")
    picture.save(root / "strong.jpg", quality=40)
    picture.resize((picture.width // 2, picture.height // 2)).save(root / "half.png")
    picture.resize((picture.width * 3, picture.height * 3), Image.Resampling.BICUBIC).save(root / "large.jpg")
    picture.convert("L").save(root / "grey.webp")
    copies = ("strong.jpg", "half.png", "large.jpg", "grey.webp")
    kept, report = deduplicate(train(*copies) + dev(f"{name}.png"), root)
    assert kept == dev(f"{name}.png")
    assert report.near_development == list(copies)


def test_the_same_file_counts_once_in_training(root: Path) -> None:
    (root / "copy.png").write_bytes((root / "chelsea.png").read_bytes())
    kept, report = deduplicate(train("chelsea.png", "coffee.png", "copy.png"), root)
    assert kept == train("chelsea.png", "coffee.png")
    assert report.same_file == ["copy.png"]


def test_development_sets_keep_repeats_and_what_training_has_too(root: Path) -> None:
    (root / "copy.png").write_bytes((root / "chelsea.png").read_bytes())
    kept, report = deduplicate(train("chelsea.png", "coffee.png") + dev("chelsea.png", "copy.png"), root)
    assert kept == train("coffee.png") + dev("chelsea.png", "copy.png")
    assert report.near_development == ["chelsea.png"]


def test_damaged_and_missing_files_are_named_and_left_out(root: Path) -> None:
    whole = (root / "coffee.png").read_bytes()
    (root / "short.png").write_bytes(whole[: len(whole) // 2])
    (root / "text.jpg").write_text("no photograph")
    (root / "empty.jpg").touch()
    bad = ("short.png", "text.jpg", "empty.jpg", "gone.jpg")
    kept, report = deduplicate(train("chelsea.png", *bad[:2]) + dev(*bad[2:], "coins.png"), root)
    assert kept == train("chelsea.png") + dev("coins.png")
    assert [line.split(":")[0] for line in report.unreadable] == list(bad)
    assert all(len(line.split(": ", 1)[1]) > 5 for line in report.unreadable)


def test_nothing_and_nothing_but_training(root: Path) -> None:
    assert deduplicate([], root)[0] == []
    assert deduplicate(train("coins.png"), root)[0] == train("coins.png")


def test_the_manifest_and_its_list_of_what_was_left_out(root: Path) -> None:
    clone = root / "owner" / "name"
    clone.mkdir(parents=True)
    for name in ("chelsea", "coffee"):
        (root / f"{name}.png").rename(clone / f"{name}.png")
    (clone / "copy.png").write_bytes((clone / "coffee.png").read_bytes())
    (clone / "bad.png").touch()
    paths = sorted(clone.iterdir())
    source = Collection("cats", "owner/name", "CC0", lambda _: [CollectionItem(path, "train", "cat") for path in paths])
    manifest = root / "work" / "manifest.jsonl"
    write_manifest([source], root, manifest)
    examples = read_manifest(manifest)
    assert [example.path for example in examples] == ["owner/name/chelsea.png", "owner/name/coffee.png"]
    assert counts(examples) == {("cats", "train"): 2}
    left_out = (root / "work" / "manifest.left-out.txt").read_text("utf-8").splitlines()
    assert [line.split("\t")[0] for line in left_out] == ["unreadable", "same file"]
    assert "owner/name/bad.png" in left_out[0]


def test_photographs_that_are_kept_out_do_not_train_in_any_size(root: Path, pictures: dict[str, Image.Image]) -> None:
    pictures["chelsea"].resize((150, 100)).save(root / "small.jpg", quality=60)
    kept_out = np.array([perceptual_hash(root / "chelsea.png")], np.uint64)
    kept, report = deduplicate(train("small.jpg", "coffee.png") + dev("chelsea.png"), root, kept_out)
    assert kept == train("coffee.png") + dev("chelsea.png")
    assert report.near_development == ["small.jpg"]
    kept, report = deduplicate(train("small.jpg", "coffee.png"), root, kept_out)
    assert kept == train("coffee.png")
    assert report.near_kept_out == ["small.jpg"]

"""Each reader on a small folder laid out as its publisher does."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from clipita_train.data.concepts import class_concepts, load_ontology, read_table
from clipita_train.data.photographs.collection import Collection
from clipita_train.data.photographs.collections import COLLECTIONS
from clipita_train.data.photographs.example import Example
from clipita_train.data.photographs.manifest import counts, read_manifest, write_manifest
from clipita_train.data.photographs.readers import SUFFIXES, CollectionItem, concept_and_phrases, folders, photographs

BY_NAME = {source.name: source for source in COLLECTIONS}


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(name: str, root: Path) -> Counter[tuple[str, str | None]]:
    return Counter((example.split, example.concept) for example in BY_NAME[name].examples(root))


@pytest.fixture
def clone(tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: tmp_path / BY_NAME[name].repository


def test_tiny_imagenet(tmp_path: Path, clone: Callable[[str], Path]) -> None:
    root = clone("tiny_imagenet") / "tiny-imagenet-200"
    wnids = ["n02124075", "n01443537"]
    for wnid in wnids:
        touch(*(root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG" for i in range(210)))
        touch(root / "train" / wnid / f"{wnid}_boxes.txt")
    touch(root / "val" / "images" / "val_0.JPEG")
    (root / "wnids.txt").write_text("\n".join(wnids) + "\n")
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn01443537\t0\t32\t44\t62\n")
    expected = {("train", wnid): 120 for wnid in wnids} | {("dev", "n01443537"): 1}
    assert found("tiny_imagenet", tmp_path) == expected


def test_caltech101_holds_out_a_third_and_skips_the_background(tmp_path: Path, clone: Callable[[str], Path]) -> None:
    root = clone("caltech101") / "101_ObjectCategories"
    for name in class_concepts("caltech101"):
        touch(*(root / name / f"image_{i:04}.jpg" for i in range(3)))
    touch(*(root / "accordion" / f"image_{i:04}.jpg" for i in range(3, 31)))
    touch(root / "BACKGROUND_Google" / "image_0001.jpg", root / "Faces_easy" / "image_0001.jpg")
    got = found("caltech101", tmp_path)
    assert got["dev", "n02672831"] == 10
    assert got["train", "n02672831"] == 21
    assert got["dev", "car"] == 1
    assert sum(got.values()) == 3 * 100 + 28
    listed = list(BY_NAME["caltech101"].examples(tmp_path))
    assert listed == list(BY_NAME["caltech101"].examples(tmp_path))
    assert not {e.path for e in listed if e.split == "dev"} & {e.path for e in listed if e.split == "train"}


def test_grocery_is_judged_on_coarse_classes(tmp_path: Path, clone: Callable[[str], Path]) -> None:
    root = clone("grocery") / "dataset"
    root.mkdir(parents=True)
    (root / "classes.csv").write_text(
        "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int),Iconic Image Path (str)\n"
        "Golden-Delicious,0,Apple,0,/iconic/a.jpg\nAvocado,5,Avocado,1,/iconic/b.jpg\n"
    )
    for split in ("train", "val", "test"):
        (root / f"{split}.txt").write_text(f"{split}/Fruit/a_001.jpg, 0, 0\n{split}/Fruit/b_001.jpg, 5, 1\n")
    examples = list(BY_NAME["grocery"].examples(tmp_path))
    assert [e.split for e in examples] == ["train"] * 4 + ["dev"] * 2
    fine, coarse = class_concepts("grocery"), class_concepts("grocery_coarse")
    assert examples[4] == Example(
        "marcusklasson/GroceryStoreDataset/dataset/test/Fruit/a_001.jpg",
        "grocery",
        "dev",
        fine["Golden-Delicious"],
        judged_as=coarse["Apple"],
    )


def test_clothing(tmp_path: Path, clone: Callable[[str], Path]) -> None:
    for split in ("train", "validation", "test"):
        touch(*(clone("clothing") / split / name / "a.jpg" for name in class_concepts("clothing")))
    assert Counter(split for split, _ in found("clothing", tmp_path).elements()) == {"train": 20, "dev": 10}


def test_imagenet_samples(tmp_path: Path, clone: Callable[[str], Path]) -> None:
    root = clone("imagenet_samples")
    touch(root / "n01440764_tench.JPEG", root / "n01443537_goldfish.JPEG", root / "README.md")
    assert found("imagenet_samples", tmp_path) == {("train", "n01440764"): 1, ("train", "n01443537"): 1}


def test_flickr8k_captions(tmp_path: Path, clone: Callable[[str], Path]) -> None:
    root, texts = clone("flickr8k"), tmp_path / "prakhar-dhakar" / "Image-Captioning"
    touch(*(root / "data" / "images" / name for name in ("1_a.jpg", "2_b.jpg", "3_without_a_caption.jpg")))
    with pytest.raises(FileNotFoundError, match=r"missing at .*prakhar-dhakar/Image-Captioning\. Get it with"):
        list(BY_NAME["flickr8k"].examples(tmp_path))
    texts.mkdir(parents=True)
    (texts / "Flickr8k.token.txt").write_text(
        "1_a.jpg#0\tA child in a pink dress .\n1_a.jpg#1\tA girl going in\n2_b.jpg#0\tTwo dogs.\n9_c.jpg#0\tGone .\n"
    )
    (texts / "Flickr_8k.testImages.txt").write_text("2_b.jpg\n9_c.jpg\n")
    examples = {Path(e.path).name: e for e in BY_NAME["flickr8k"].examples(tmp_path)}
    assert examples.keys() == {"1_a.jpg", "2_b.jpg"}
    assert examples["1_a.jpg"].captions == ("A child in a pink dress", "A girl going in")
    assert examples["1_a.jpg"].concept is None
    assert [examples[name].split for name in ("1_a.jpg", "2_b.jpg")] == ["train", "dev"]


def test_animal_pose_takes_photographs_of_one_kind_alone(tmp_path: Path, clone: Callable[[str], Path]) -> None:
    root = clone("animal_pose")
    marked = {
        "categories": [{"id": 1, "name": "dog"}, {"id": 4, "name": "horse"}],
        "images": {"1": "1.jpg", "2": "2.jpg", "3": "3.jpg", "4": "4.jpg"},
        "annotations": [
            {"image_id": image, "category_id": kind} for image, kind in ((1, 1), (1, 1), (2, 4), (3, 1), (3, 4))
        ],
    }
    root.mkdir(parents=True)
    (root / "keypoints.json").write_text(json.dumps(marked))
    examples = list(BY_NAME["animal_pose"].examples(tmp_path))
    assert [(Path(e.path).name, e.split, e.concept) for e in examples] == [
        ("1.jpg", "train", "dog"),
        ("2.jpg", "train", "horse"),
    ]


def test_folders_takes_a_limited_and_stable_choice(tmp_path: Path) -> None:
    rows = [row for row in read_table("folders.tsv", 3) if row[0] == "bird_cat_dog"]
    for _, pattern, _ in rows:
        touch(*(tmp_path / pattern.replace("*", f"{i:03}.jpg") for i in range(40)))
        touch(tmp_path / pattern.replace("*", "notes.txt"))
    read = folders("bird_cat_dog", train=20, dev=5)
    examples = list(read(tmp_path))
    assert Counter((e.split, e.concept) for e in examples) == {
        (split, concept): count for _, _, concept in rows for split, count in (("dev", 5), ("train", 20))
    }
    assert len({e.path for e in examples}) == len(examples)
    assert examples == list(read(tmp_path))
    # More photographs for training leave the development set as it is, and the root has no say in the order.
    assert [e for e in folders("bird_cat_dog", train=30, dev=5)(tmp_path) if e.split == "dev"] == [
        e for e in examples if e.split == "dev"
    ]


def test_folders_leaves_out_what_is_no_photograph(tmp_path: Path) -> None:
    drawings = [path for name, path, _ in read_table("not_photographs.tsv", 3) if name == "animals8"]
    assert len(set(drawings)) == len(drawings) > 50
    touch(*(tmp_path / path for path in drawings))
    read = folders("animals8", train=0, dev=1000)
    for kind in ("cat", "sheep", "spider"):
        touch(tmp_path / f"dataset/train/{kind}/0.jpg")
    found = list(read(tmp_path))
    assert [e.path.name for e in found] == ["0.jpg"] * 3


def test_folders_names_a_pattern_without_photographs(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no photographs at .*dataset/bird/\*: is the clone complete"):
        list(folders("bird_cat_dog", train=1)(tmp_path))


def test_photographs_keeps_to_image_files(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("a.JPG", "b.png", "c.txt", "d.jpeg", "e.webp", "f.gif")))
    assert {path.suffix.lower() for path in photographs(tmp_path)} == SUFFIXES
    with pytest.raises(FileNotFoundError, match="is the clone complete"):
        photographs(tmp_path / "nowhere")


def test_the_order_does_not_depend_on_where_the_data_are(tmp_path: Path) -> None:
    for place in ("one", "two/deeper"):
        touch(*(tmp_path / place / "cats" / f"{i}.jpg" for i in range(20)))
    one, two = (photographs(tmp_path / place / "cats") for place in ("one", "two/deeper"))
    assert [path.name for path in one] == [path.name for path in two]
    assert [path.name for path in one] != sorted(path.name for path in one)


@pytest.mark.parametrize("source", COLLECTIONS, ids=lambda source: source.name)
def test_a_missing_clone_names_the_command_and_the_way_without(source: Collection, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        list(source.examples(tmp_path))
    message = str(raised.value)
    assert f"git clone https://github.com/{source.repository} {tmp_path / source.repository}" in message
    assert f"--without {source.name}" in message
    assert "\n" not in message


@pytest.mark.parametrize("source", COLLECTIONS, ids=lambda source: source.name)
def test_an_empty_clone_is_no_empty_source(source: Collection, tmp_path: Path) -> None:
    (tmp_path / source.repository).mkdir(parents=True)
    if source.name == "imagenet_samples":  # all its files lie at the top
        assert list(source.examples(tmp_path)) == []
    else:
        with pytest.raises(FileNotFoundError):
            list(source.examples(tmp_path))


def test_the_clone_command_checks_out_a_commit_and_gets_all_that_a_reader_needs(tmp_path: Path) -> None:
    command = BY_NAME["flickr8k"].clone_command(tmp_path)
    clone, checkout, captions = command.split(" && ")
    assert clone == f"git clone https://github.com/RlNZLER/Image-Text-Matching {tmp_path}/RlNZLER/Image-Text-Matching"
    assert checkout.endswith(" checkout 56a15d913c3f290e2ee896386ece6076c1eea02e")
    assert captions.startswith("git clone https://github.com/prakhar-dhakar/Image-Captioning ")


def test_sources_and_the_table_of_folders_know_each_other() -> None:
    names = [source.name for source in COLLECTIONS]
    rows = list(read_table("folders.tsv", 3))
    assert len(names) == len(set(names))
    assert {row[0] for row in rows} <= set(names)
    shown = [concept_and_phrases(row[2]) for row in rows]
    assert {concept for concept, _ in shown if concept} <= set(load_ontology().index)
    assert [row for row, (concept, phrases) in zip(rows, shown, strict=True) if not (concept or phrases)] == []
    assert [row for row in rows if Path(row[1]).is_absolute() or ".." in row[1] or "\\" in row[1]] == []
    assert len({tuple(row[:2]) for row in rows}) == len(rows)


def test_a_cell_of_folders_names_a_concept_or_describes_what_is_shown_or_both() -> None:
    phrases = ("una strada di notte", "a street at night")
    assert concept_and_phrases('"una strada di notte; a street at night"') == (None, phrases)
    assert concept_and_phrases('street "una strada di notte; a street at night"') == ("street", phrases)
    assert concept_and_phrases("street") == ("street", ())


def test_a_photograph_has_the_concept_and_the_phrases_of_its_folder(tmp_path: Path) -> None:
    root = tmp_path / BY_NAME["album_flamers1500"].repository
    for name, pattern, _ in read_table("folders.tsv", 3):
        if name == "album_flamers1500":
            touch(root / pattern.replace("*", "1.jpg"))
    examples = {Path(e.path).parent.name: e for e in BY_NAME["album_flamers1500"].examples(tmp_path)}
    assert (examples["buildings"].concept, examples["cat"].concept) == ("building", "cat")
    assert examples["buildings"].captions == ("un edificio antico", "an old building")


def test_photographs_for_other_evaluations_are_for_development_and_show_no_concept(tmp_path: Path) -> None:
    root = tmp_path / BY_NAME["flash_cards"].repository
    touch(root / "assets" / "images" / "owl.jpg", root / "assets" / "js" / "game.js", root / "documentation" / "a.png")
    examples = list(BY_NAME["flash_cards"].examples(tmp_path))
    assert [(Path(e.path).name, e.split, e.concept, e.captions) for e in examples] == [("owl.jpg", "dev", None, ())]


def test_a_table_of_classes_names_its_photographs_by_a_path_of_elsewhere(tmp_path: Path) -> None:
    root = tmp_path / BY_NAME["activities"].repository
    classes = class_concepts("activities")
    names = [f"Image_{i}.jpg" for i in range(len(classes))]
    touch(*(root / "train" / name for name in names))
    lines = [f"C:/Users/x/train/{name},{label}" for name, label in zip(names, classes, strict=True)]
    (root / "Training_set.csv").write_text("\n".join(["filename,label", *lines, "C:/x/gone.jpg,sitting", "y,unknown"]))
    assert found("activities", tmp_path) == {("train", concept): 1 for concept in classes.values()}


def test_an_example_as_a_line_of_a_manifest_and_back() -> None:
    for example in (
        Example("a/b.jpg", "grocery", "dev", "apple", judged_as="fruit"),
        Example("a/c.jpg", "flickr8k", "train", captions=("Two dogs", "Perché no")),
    ):
        fields = example.to_json()
        assert not {None, ()} & {*fields.values()}
        assert Example.from_json(fields) == example


def test_a_manifest_that_is_not_there_yet(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"write it first, with clipita-train prepare"):
        read_manifest(tmp_path / "manifest.jsonl")


def test_an_interrupted_source_leaves_no_manifest(tmp_path: Path) -> None:
    def read(_: Path) -> list[CollectionItem]:
        raise FileNotFoundError("no folder")

    (tmp_path / "owner" / "name").mkdir(parents=True)
    with pytest.raises(FileNotFoundError):
        write_manifest([Collection("x", "owner/name", "", read)], tmp_path, tmp_path / "work" / "manifest.jsonl")
    assert not (tmp_path / "work" / "manifest.jsonl").exists()
    assert counts([]) == {}

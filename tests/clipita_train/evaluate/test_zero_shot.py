"""Zero-shot classification of folders of photographs: layouts, accuracies against brute force, and the command."""

import json
import tracemalloc
from pathlib import Path

import clipita_train.cli
import numpy as np
import pytest
from click.testing import CliRunner, Result
from clipita_train.evaluate.image_folders import LabeledImages, find_labeled_images
from clipita_train.evaluate.label_sets import LabelSet
from clipita_train.evaluate.metrics import accuracy_at_k, expected_calibration_error
from clipita_train.evaluate.zero_shot import PHRASINGS, classify, read_phrasing, top_labels
from PIL import Image
from scipy.io import savemat
from support.tiny import make_tiny_bundle

import clipita

LABELS = LabelSet("small", ("n00000001", "n00000002", "n00000003"), ("un gatto", "un cane", "dell'acqua"))
CAT, DOG, WATER = 0, 1, 2


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def found(classified: LabeledImages) -> dict[str, int]:
    return {path.name: place for path, place in zip(classified.paths, classified.classes, strict=True)}


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (("val/n00000002/a.JPEG", "val/n00000001/b.JPEG"), {"b.JPEG": CAT, "a.JPEG": DOG}),
        (("train/n00000002/images/n00000001_0.JPEG",), {"n00000001_0.JPEG": DOG}),  # the folder says it
        (("n00000001_tench.JPEG", "n00000003_x_y.JPEG"), {"n00000001_tench.JPEG": CAT, "n00000003_x_y.JPEG": WATER}),
        (("ILSVRC2012_val_00000001_n00000002.JPEG",), {"ILSVRC2012_val_00000001_n00000002.JPEG": DOG}),
        (("gatto/1.jpg", "Un Cane/2.png", "acqua/3.webp", "dell'acqua/4.jpeg"),
         {"1.jpg": CAT, "2.png": DOG, "3.webp": WATER, "4.jpeg": WATER}),
    ],
)  # fmt: skip
def test_folders_and_names_tell_the_class(names: tuple[str, ...], classes: dict[str, int], tmp_path: Path) -> None:
    classified = find_labeled_images(touch(tmp_path, *names, "n00000001/notes.txt"), LABELS)
    assert found(classified) == classes
    assert list(classified.paths) == sorted(classified.paths)
    assert classified.strangers == {}


@pytest.mark.parametrize(
    "text",
    [
        "ImageId,PredictionString\nval_1,n00000002 10 20 30 40 n00000002 1 2 3 4\nval_2,n00000001 0 0 9 9\n",  # Kaggle
        "val_1.JPEG\tn00000002\t0\t32\t44\t62\nval_2.JPEG\tn00000001\t0\t0\t1\t1\n",  # Tiny ImageNet
        "val_1.JPEG 1\nval_2.JPEG 0\n",  # Caffe
        "n00000002\nn00000001\n",  # TensorFlow
        "val/val_2.JPEG\tun gatto\r\nval/val_1.JPEG\tcane\r\n",
    ],
)
def test_a_list_tells_the_class(text: str, tmp_path: Path) -> None:
    (tmp_path / "truth.txt").write_text(text, "utf-8")
    images = touch(tmp_path / "images", "val_1.JPEG", "val_2.JPEG")
    assert found(find_labeled_images(images, LABELS, tmp_path / "truth.txt")) == {"val_1.JPEG": DOG, "val_2.JPEG": CAT}


def test_imagenets_own_numbers_are_those_of_its_development_kit(tmp_path: Path) -> None:
    truth = tmp_path / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("490\n1\n", "utf-8")
    images = touch(tmp_path / "images", "ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000002.JPEG")
    with pytest.raises(ValueError, match=r"need meta.mat beside it"):
        find_labeled_images(images, LABELS, truth)
    synsets = np.zeros(3, [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")])
    for row, number, name in zip(synsets, (1, 490, 1001), ("n00000003", "n00000001", "n99999999"), strict=True):
        row["ILSVRC2012_ID"], row["WNID"], row["words"] = number, name, "some words"
    savemat(tmp_path / "meta.mat", {"synsets": synsets})
    assert list(found(find_labeled_images(images, LABELS, truth)).values()) == [CAT, WATER]


def test_strangers_are_counted_and_nothing_to_ask_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no photograph under .*; looked for .*\.apng, .*\.webp.*\. Left aside: 1 that"
    ):
        find_labeled_images(touch(tmp_path, "notes.txt"), LABELS)
    touch(tmp_path, "n00000009/1.jpg", "n00000009/2.jpg", "3.jpg")
    with pytest.raises(FileNotFoundError, match=r"shows a class of small, such as 'n00000001'; found were '\.', 'n0"):
        find_labeled_images(tmp_path, LABELS)
    touch(tmp_path, "n00000001/4.jpg")
    assert find_labeled_images(tmp_path, LABELS).strangers == {"n00000009": 2, ".": 1}
    (tmp_path / "list.txt").write_text("4.jpg n00000001\n1.jpg n00000009\n", "utf-8")
    listed = find_labeled_images(tmp_path, LABELS, tmp_path / "list.txt")
    assert (found(listed), listed.strangers) == ({"4.jpg": CAT}, {"not in list.txt": 2, "n00000009": 1})


def test_thumbnails_are_no_photographs_of_a_class_and_are_told(tmp_path: Path) -> None:
    folder = touch(tmp_path, "gatto/1.jpg", "gatto/2.bmp", "gatto/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "cane/._3.jpg")
    classified = find_labeled_images(folder, LABELS)
    assert found(classified) == {"1.jpg": CAT, "2.bmp": CAT}
    assert classified.left_aside == (
        "Left aside: 1 folder of thumbnails, snapshots or deleted files (gatto/@eaDir); 1 hidden (cane/._3.jpg)."
    )
    (folder / "gatto" / "4.jpg").symlink_to(folder / "assente.jpg")
    with pytest.raises(ValueError, match=r"gatto/4\.jpg is a link to a file that does not exist"):
        find_labeled_images(folder, LABELS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs on each line a class, or a file's name and its class"),
        ("1.jpg n00000001\nn00000001\n", "needs on each line a class"),
        ("n00000001\n", "has 1 lines, and there are 2 photographs"),
        ("1.jpg 3\n2.jpg 0\n", "has the class 3, and small has 3, from 0"),
    ],
)
def test_lists_that_do_not_fit(text: str, message: str, tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    (tmp_path / "list.txt").write_text(text, "utf-8")
    with pytest.raises(ValueError, match=message):
        find_labeled_images(tmp_path, LABELS, tmp_path / "list.txt")


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    rows = rng.normal(size=shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_what_is_told_is_that_of_the_whole_matrix() -> None:
    rng = np.random.default_rng(0)
    images, labels, shown = unit(rng, 9000, 12), unit(rng, 40, 12), rng.integers(40, size=9000)
    images += labels[shown]
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    ranks, said, sure = top_labels(images, labels, shown, 20.0)
    scores = images @ labels.T
    shares = np.exp(20.0 * scores.astype(np.float64))
    np.testing.assert_allclose(sure, (shares / shares.sum(1, keepdims=True)).max(1), rtol=1e-5)
    np.testing.assert_array_equal(said, scores.argmax(1))
    for k in (1, 5, 10):
        assert (ranks <= k).mean() == accuracy_at_k(scores, shown, k)
    assert (said[ranks == 1] == shown[ranks == 1]).all()


@pytest.mark.slow
def test_fifty_thousand_photographs_and_a_thousand_labels_need_little_memory() -> None:
    rng = np.random.default_rng(0)
    images, labels, shown = unit(rng, 50_000, 4), unit(rng, 1000, 4), rng.integers(1000, size=50_000)
    tracemalloc.start()
    try:
        ranks, said, _ = top_labels(images, labels, shown, 100.0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24e6  # all scores would be 200 MB
    assert len(ranks) == len(said) == 50_000


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = [tmp_path_factory.mktemp("bundles") / name for name in ("float32", "int4")]
    for folder in folders:
        make_tiny_bundle(folder, folder.name)
    return folders


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Photographs in folders of three classes, one damaged and one of a stranger, and two label sets for them."""
    rng = np.random.default_rng(0)
    for i, name in enumerate(["cat"] * 4 + ["dog"] * 3 + ["water", "water", "stranger"]):
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (44, 50, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    (tmp_path / "images" / "dog" / "6.png").write_bytes(b"no picture")
    (tmp_path / "a.tsv").write_text("id\tlabel\ncat\tgatto\ndog\tcane\nwater\tdell'acqua\nbird\tuccello\n", "utf-8")
    (tmp_path / "b.tsv").write_text("id\tlabel\ncat\tcane\ndog\tcane\nwater\tacqua\nbird\tuccello\n", "utf-8")
    return tmp_path


def call(place: Path, *more: str) -> Result:
    arguments = ["evaluate", "zeroshot", "--images", f"{place}/images", *more]
    return CliRunner().invoke(clipita_train.cli.main, arguments)


def test_the_command_measures_models_label_sets_and_phrasings(place: Path, bundles: list[Path]) -> None:
    options = [f"--model={folder}" for folder in bundles]
    options += [f"--labels={place}/{name}.tsv" for name in "ab"]
    result = call(place, *options, "--templates=bare", "--templates=model", f"--out={place}/scores")
    assert result.exit_code == 0, result.output
    text = (place / "scores.md").read_text("utf-8")
    assert text in result.output
    assert "- 8 photographs of 3 classes, each asked against all 4 labels; left out: 1 unreadable, 1 of no" in text
    assert "- Labels a.tsv: none of them the same as another's" in text
    assert "- Labels b.tsv: 2 of them the same as another's, whose photographs cannot be right at 1." in text
    assert "| tiny | b.tsv | model | " in text
    assert "## Compared with tiny, a.tsv, bare\n" in text
    assert "## Most confused: tiny, a.tsv, bare\n" in text

    data = json.loads((place / "scores.json").read_text("utf-8"))
    assert [row["fingerprint"] for row in data["rows"][::4]] == [clipita.load(folder).fingerprint for folder in bundles]
    assert [(row["labels"], row["phrasing"]) for row in data["rows"][:4]] == [
        ("a.tsv", "bare"), ("a.tsv", "model"), ("b.tsv", "bare"), ("b.tsv", "model"),
    ]  # fmt: skip
    shown = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    model = clipita.load(bundles[1])
    images = model.encode_image([f for f in sorted((place / "images").glob("*/?.png")) if f.stem not in ("6", "9")])
    asked = {"bare": ["gatto", "cane", "acqua", "uccello"], "model": ["gatto", "cane", "dell'acqua", "uccello"]}
    for row, (name, labels) in zip(data["rows"][4:6], asked.items(), strict=True):
        bank = model.label_bank(labels, templates="{}" if name == "bare" else None)
        scores = images @ bank.embeddings.T
        expected = accuracy_at_k(scores, shown, 1)
        assert row["accuracy"]["Acc@1"]["value"] == pytest.approx(expected)
        assert row["accuracy"]["Acc@5"]["value"] == 1
        assert row["differences"]["Acc@1"]["value"] == pytest.approx(
            expected - data["rows"][0]["accuracy"]["Acc@1"]["value"]
        )
        by_class = [accuracy_at_k(scores[shown == i], shown[shown == i], 1) for i in range(3)]
        assert [one["top1"] for one in row["classes"]] == pytest.approx(by_class)
        assert row["mean_of_classes"] == pytest.approx(np.mean(by_class))
        shares = np.exp(model.logit_scale * scores.astype(np.float64))
        shares /= shares.sum(1, keepdims=True)
        assert row["calibration_error"] == pytest.approx(expected_calibration_error(shares, shown), abs=1e-6)
        assert [one["photographs"] for one in row["classes"]] == [4, 2, 2]
        wrong = sum(pair["photographs"] for pair in row["confused"])
        assert wrong == round((1 - expected) * 8)
        said = scores.argmax(1)
        for pair in row["confused"]:
            names = ["gatto", "cane", "dell'acqua", "uccello"]
            one, other = names.index(pair["shown"]), names.index(pair["said"])
            assert pair["photographs"] == ((shown == one) & (said == other)).sum()
            assert pair["of"] == (shown == one).sum()
    twins = data["rows"][6]
    assert twins["twins"] == 2
    assert [one["top1"] for one in twins["classes"]][:2] == [0, 0]


def test_a_second_table_embeds_nothing(place: Path, bundles: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    more = [f"--model={bundles[0]}", f"--labels={place}/a.tsv", f"--cache={place}/cache"]
    first = call(place, *more)
    assert first.exit_code == 0, first.output

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("embedded again")

    monkeypatch.setattr(clipita.Model, "iter_encode_image", fail)
    monkeypatch.setattr(clipita.Model, "encode_text", fail)
    assert call(place, *more).output == first.output


def test_templates_come_from_a_file_too(place: Path, bundles: list[Path]) -> None:
    (place / "mine.txt").write_text("un disegno di {}\n\nuna foto di {}\n", "utf-8")
    assert read_phrasing(f"{place}/mine.txt").templates == ("un disegno di {}", "una foto di {}")
    assert not PHRASINGS["bare"].articles
    more = [f"--model={bundles[0]}", f"--labels={place}/a.tsv", f"--templates={place}/mine.txt"]
    assert "- Phrasing mine.txt: “un disegno di {}”, “una foto di {}”." in call(place, *more).output


def test_what_is_wrong_is_one_line(place: Path, bundles: list[Path]) -> None:
    def fails(*more: str) -> str:
        result = call(place, f"--model={bundles[0]}", *more)
        assert isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code != 0
        return result.output.splitlines()[-1]

    assert "no photograph under" in fails()  # of ImageNet's classes, which are the default
    assert "no label set 'imagenet'" in fails("--labels=imagenet")
    assert "no templates 'nude'" in fails(f"--labels={place}/a.tsv", "--templates=nude")
    (place / "none.txt").write_text("una foto\n", "utf-8")
    assert "must have one {}" in fails(f"--labels={place}/a.tsv", f"--templates={place}/none.txt")
    (place / "c.tsv").write_text("id\tlabel\ndog\tcane\ncat\tgatto\n", "utf-8")
    assert "the same ids in the same order" in fails(f"--labels={place}/a.tsv", f"--labels={place}/c.tsv")
    for path in (place / "images").glob("*/*.png"):
        path.write_bytes(b"no picture")
    assert "none of the 9 photographs can be read" in fails(f"--labels={place}/a.tsv")


def test_ids_in_another_order_are_not_compared(bundles: list[Path], tmp_path: Path) -> None:
    other = LabelSet("other", LABELS.ids[::-1], LABELS.labels)
    with pytest.raises(ValueError, match="the same ids"):
        classify([clipita.load(bundles[0])], LabeledImages((), (), {}), [LABELS, other], [PHRASINGS["bare"]], tmp_path)

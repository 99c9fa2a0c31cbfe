"""Photographs get the labels that they show, or none, whatever other labels and photographs there are."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import PHOTOS
from support.tiny_bundle import tiny_config, tiny_files

import clipita
from clipita.bundles.bundle import write_bundle
from clipita.errors import CheckpointError, ClipitaError, ImageError, TextError
from clipita.search.index import Index
from clipita.search.labels.examples import examples_bank, read_examples
from clipita.search.labels.file import LabelLine, read_labels
from clipita.search.labels.labeling import EXAMPLE_SHARE, WORD_SHARE, matches_of, thresholds_of
from clipita.search.presence import Background
from clipita.zero_shot import LabelBank

LABELS = ["gatto", "tazza di caffè", "razzo", "pizza", "semaforo"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder = tmp_path_factory.mktemp("archive") / "foto"
    shutil.copytree(PHOTOS, folder)
    (folder / "copie").mkdir()
    shutil.copy(folder / "gatto.jpg", folder / "copie/di gatto.jpg")
    Image.new("RGB", (64, 64), (90, 90, 90)).save(folder / "grigio.png")
    index = Index.open(folder)
    index.update()
    return index


def given(index: Index, labels: list[str] | LabelBank, **how: object) -> dict[str, list[str]]:
    found = index.label(labels, **how)  # type: ignore[arg-type]
    return {item.path: [match.label for match in item.labels] for item in found}


def test_each_file_gets_what_it_shows_and_gray_gets_nothing(archive: Index) -> None:
    found = given(archive, LABELS)
    assert list(found) == sorted(found)
    assert found["gatto.jpg"] == found["copie/di gatto.jpg"] == ["gatto"]
    assert found["caffe.jpg"] == ["tazza di caffè"]
    assert found["razzo.jpg"] == []  # to this model a tower more than a rocket
    assert found["grigio.png"] == []
    assert given(archive, LABELS, below="copie") == {"copie/di gatto.jpg": ["gatto"]}


def test_a_share_depends_on_no_other_label(archive: Index) -> None:
    alone, among = archive.label(["gatto"]), archive.label(LABELS)
    share = {item.path: item.labels for item in among}["gatto.jpg"][0].share
    assert {item.path: item.labels for item in alone}["gatto.jpg"][0].share == pytest.approx(share, abs=1e-5)
    assert 0.2 <= share < 1


def test_thresholds_are_for_all_or_for_one(archive: Index) -> None:
    assert given(archive, LABELS, threshold=1)["gatto.jpg"] == []
    assert given(archive, LABELS, threshold={"gatto": 1.0})["gatto.jpg"] == []
    some = given(archive, LABELS, threshold={"gatto": 1.0, "razzo": 0.003})
    assert (some["gatto.jpg"], some["caffe.jpg"], some["razzo.jpg"]) == ([], ["tazza di caffè"], ["razzo"])
    everything = given(archive, LABELS, min_cosine=-1)
    assert sorted(everything["grigio.png"]) == sorted(LABELS)
    assert given(archive, LABELS, min_cosine=-1, top_k=2)["gatto.jpg"] == everything["gatto.jpg"][:2]
    assert everything["gatto.jpg"][0] == "gatto"


def test_examples_name_what_has_no_word(archive: Index) -> None:
    photos = {"Micia": [PHOTOS / "gatto.jpg"], "Moka": [PHOTOS / "caffe.jpg"]}
    bank = archive.examples_bank(photos, words=["razzo", "Moka"])
    assert bank.labels == ("razzo", "Moka", "Micia")
    assert bank.from_photos == {"Moka", "Micia"}
    found = given(archive, bank, threshold={"razzo": 0.003})
    assert (found["gatto.jpg"], found["razzo.jpg"], found["grigio.png"]) == (["Micia"], ["razzo"], [])
    made = examples_bank(archive.model, photos)
    assert archive.model.zero_shot(PHOTOS / "gatto.jpg", made)[0].label == "Micia"
    np.testing.assert_allclose(np.linalg.norm(bank.embeddings, axis=1), 1, atol=1e-6)


def test_dropping_photographs_early_changes_no_share() -> None:
    random = np.random.default_rng(0)

    def vectors(count: int) -> np.ndarray:
        made = random.normal(size=(count, 16)).astype(np.float32)
        return made / np.linalg.norm(made, axis=1, keepdims=True)

    photos, background = vectors(9000).astype(np.float16), Background(vectors(203), 22.0)
    bank = LabelBank(tuple("abcdefg"), vectors(7), "x")
    thresholds = thresholds_of(bank, {"a": 0.4, "b": 0.05})
    positions = np.arange(500, 9000, dtype=np.int64)
    found = matches_of(photos, positions, bank, background, thresholds=thresholds, min_cosine=None, top_k=None)
    cosine = photos.astype(np.float64) @ bank.embeddings.T
    others = np.exp(22 * (photos.astype(np.float64) @ background.vectors.T)).sum(axis=1)
    share = np.exp(22 * cosine) / (np.exp(22 * cosine) + others[:, None])  # (N, K)
    expected = {(n, bank.labels[k]): share[n, k] for n, k in np.argwhere(share >= thresholds).tolist() if n >= 500}
    assert len(expected) > 100
    assert {(n, m.label): m.share for n, row in found.items() for m in row} == pytest.approx(expected, abs=1e-4)
    for row in found.values():
        assert [m.cosine for m in row] == sorted((m.cosine for m in row), reverse=True)


def test_a_scale_of_a_hundred_and_more_overflows_nothing() -> None:
    photos = np.eye(4, dtype=np.float16)
    background = Background(-np.eye(4, dtype=np.float32), 200.0)
    bank = LabelBank(("a", "b"), np.eye(4, dtype=np.float32)[:2], "x")
    for min_cosine in (None, -1.0):
        found = matches_of(
            photos,
            np.arange(4),
            bank,
            background,
            thresholds=thresholds_of(bank, None),
            min_cosine=min_cosine,
            top_k=1,
        )
        assert [found[n][0].label for n in (0, 1)] == ["a", "b"]
        assert found[0][0].share == pytest.approx(1)


def test_mistakes_are_told(tmp_path: Path, shared_bundle: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    index = Index.open(tmp_path, model=shared_bundle)
    with pytest.raises(ClipitaError, match="there is no index"):
        index.label(["a"])
    index.update()
    with pytest.raises(TextError, match="'mare', which is not among the labels"):
        index.label(["gatto"], threshold={"mare": 0.1})
    with pytest.raises(ClipitaError, match="above 0 and at most 1, and 0 is that of 'gatto'"):
        index.label(["gatto"], threshold=0)
    with pytest.raises(ClipitaError, match="top_k must be a number from 1 on"):
        index.label(["gatto"], top_k=0)
    with pytest.raises(TextError, match="has its templates in it"):
        index.label(index.model.label_bank(["gatto"]), templates="{}")
    with pytest.raises(ImageError, match="'Argo' has no example"):
        index.examples_bank({"Argo": []})
    with pytest.raises(TextError, match="must be a list of photographs"):
        index.examples_bank({"Argo": "a.png"})
    with pytest.raises(ClipitaError, match="holds no examples"):
        read_examples(tmp_path)
    write_bundle(tmp_path / "altro", config=tiny_config(), files=tiny_files(seed=1))
    with pytest.raises(CheckpointError, match="make the bank with the index's model"):
        index.label(clipita.load(tmp_path / "altro").label_bank(["gatto"]))


def test_words_and_examples_have_thresholds_of_their_own(shared_bundle: Path) -> None:
    bank = examples_bank(clipita.load(shared_bundle), {"Argo": [PHOTOS / "gatto.jpg"]}, words=["mare"])
    np.testing.assert_allclose(thresholds_of(bank, None), [WORD_SHARE, EXAMPLE_SHARE])
    np.testing.assert_allclose(thresholds_of(bank, {"Argo": 0.3}), [WORD_SHARE, 0.3])


def test_a_file_of_labels_has_thresholds_and_levels(tmp_path: Path) -> None:
    file = tmp_path / "parole.txt"
    file.write_text("\ufeff# mie\r\ngatto\t0,3\r\n\r\nAnimali > Cani>cane\nmare \t 0.05\n", encoding="utf-8")
    assert read_labels(str(file)) == [
        LabelLine(("gatto",), 0.3),
        LabelLine(("Animali", "Cani", "cane"), None),
        LabelLine(("mare",), 0.05),
    ]
    assert len(read_labels("food")) == 51
    for text, message in {
        "gatto\n> cane\n": r"line 2: '> cane' has a '>' with nothing on one side",
        "gatto\tmolto\n": r"line 1: 'molto' is no threshold",
        "gatto\tnan\n": r"'nan' is no threshold",
        "# niente\n": "holds no label",
    }.items():
        file.write_text(text)
        with pytest.raises(ClipitaError, match=message):
            read_labels(str(file))
    file.write_bytes("città".encode("latin-1"))
    with pytest.raises(ClipitaError, match="is not UTF-8"):
        read_labels(str(file))
    with pytest.raises(ClipitaError, match=r"cannot be read as a file of labels: No such file.*animals, food"):
        read_labels("animali")

"""`clipita label`, as a user and as a machine see it."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipita.search.index import Index


@pytest.fixture
def archive(tmp_path: Path, shared_bundle: Path) -> Path:
    folder = tmp_path / "foto"
    for number in range(4):
        path = folder / f"{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        blocks = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(np.kron(blocks, np.ones((8, 8, 1), np.uint8))).save(path)
    Index.open(folder, model=shared_bundle).update()
    return folder


@pytest.fixture
def words(tmp_path: Path) -> Path:
    file = tmp_path / "parole.txt"
    file.write_text("# prova\nAnimali > gatto\nmare\n", encoding="utf-8")
    return file


def test_text_is_a_line_for_each_photograph(run: Any, archive: Path, words: Path) -> None:
    done = run("label", "--in", archive, "--labels", words, "--min-cosine", -1, "-k", 1)
    lines = [line.split(": ") for line in done.stdout.splitlines()]
    assert [path for path, _ in lines] == ["0/0.png", "0/2.png", "1/1.png", "1/3.png"]
    assert {label for _, label in lines} <= {"gatto", "mare"}
    assert "4 of 4 photographs have labels" in done.stderr
    done = run("label", "--in", archive, "--labels", words, "--threshold", 1)
    assert done.stdout.splitlines()[0] == "0/0.png: -"
    assert "0 of 4 photographs have labels" in done.stderr


def test_json_is_one_object_of_these_keys(run: Any, archive: Path, words: Path) -> None:
    arguments = ("--in", archive / "1", "--labels", words, "--min-cosine", -1, "--xmp", "--json")
    value = json.loads(run("label", *arguments).stdout)
    assert list(value) == ["photographs", "xmp", "model", "fingerprint"]
    assert [item["path"] for item in value["photographs"]] == ["1/1.png", "1/3.png"]
    first = value["photographs"][0]
    assert list(first) == ["path", "labels"]
    assert sorted(match["label"] for match in first["labels"]) == ["gatto", "mare"]
    assert list(first["labels"][0]) == ["label", "share", "cosine"]
    assert value["xmp"] == {
        "written": [str(archive / "1/1.png.xmp"), str(archive / "1/3.png.xmp")],
        "unchanged": 0,
        "failures": [],
    }
    assert json.loads(run("label", *arguments).stdout)["xmp"] == {"written": [], "unchanged": 2, "failures": []}
    assert json.loads(run("label", "--in", archive, "--labels", words, "--json").stdout)["xmp"] is None


def test_a_table_has_a_row_for_each_label(run: Any, archive: Path, words: Path, tmp_path: Path) -> None:
    table = tmp_path / "etichette.csv"
    assert run("label", "--in", archive, "--labels", words, "--min-cosine", -1, "--csv", table).stdout == ""
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert list(rows[0]) == ["path", "label", "share", "cosine"]
    run("label", "--in", archive, "--labels", words, "--threshold", 1, "--csv", table)
    assert table.read_text("utf-8-sig").splitlines()[1] == "0/0.png,,,"


def test_xmp_holds_the_hierarchy_and_originals_stay(run: Any, archive: Path, words: Path) -> None:
    before = {path: path.read_bytes() for path in archive.rglob("*.png")}
    done = run("label", "--in", archive, "--labels", words, "--min-cosine", -1, "--xmp")
    assert "4 XMP files written, 0 unchanged" in done.stderr
    assert {path: path.read_bytes() for path in archive.rglob("*.png")} == before
    assert "<rdf:li>Animali/gatto</rdf:li>" in (archive / "0/0.png.xmp").read_text()
    run("label", "--in", archive, "--labels", words, "--threshold", 1, "--xmp")
    assert not list(archive.rglob("*.xmp"))


def test_what_cannot_be_written_is_named_and_the_rest_is_done(run: Any, archive: Path, words: Path) -> None:
    (archive / "0/0.png.xmp").write_text("<!DOCTYPE x><x/>")
    Image.new("RGB", (32, 32)).save(archive / "1/1.png")
    done = run("label", "--in", archive, "--labels", words, "--min-cosine", -1, "--xmp")
    assert done.exit_code == 1
    assert "0/0.png: " in done.stderr
    assert "was left alone: it has a DOCTYPE" in done.stderr
    assert "1/1.png: is not what was indexed any more. Give clipita index first." in done.stderr
    assert "2 XMP files written" in done.stderr
    assert not (archive / "1/1.png.xmp").exists()


def test_labels_by_example_and_in_words_stand_together(run: Any, archive: Path, words: Path, tmp_path: Path) -> None:
    example = tmp_path / "esempi/Argo/1.png"
    example.parent.mkdir(parents=True)
    example.write_bytes((archive / "0/0.png").read_bytes())
    arguments = ("--in", archive, "--labels", words, "--examples", tmp_path / "esempi", "--min-cosine", -1)
    value = json.loads(run("label", *arguments, "--json").stdout)
    cosines = {match["label"]: match["cosine"] for match in value["photographs"][0]["labels"]}
    assert sorted(cosines) == ["Argo", "gatto", "mare"]
    assert max(cosines, key=cosines.__getitem__) == "Argo"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--in", "foto"), "Give --labels, --examples or both"),
        (("--in", "foto", "--labels", "animali"), "one of animals, food"),
        (("--in", "vuota", "--labels", "parole.txt"), "Make one first: clipita index"),
        (("--in", "foto", "--labels", "parole.txt", "--csv", "no/x.csv"), "cannot be written: No such file"),
        (("--in", "foto", "--examples", "vuota"), "holds no examples"),
        (("--in", "foto", "--labels", "parole.txt", "--threshold", "nan"), "is not a threshold"),
    ],
)
def test_mistakes_are_told(
    run: Any, archive: Path, words: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    (words.parent / "vuota").mkdir()
    monkeypatch.chdir(words.parent)
    done = run("label", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr

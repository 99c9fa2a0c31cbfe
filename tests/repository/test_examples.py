"""Each example runs as it stands, and sees what is on the photographs that come with it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import PHOTOS, ROOT

import clipita

EXAMPLES = ROOT / "examples"
SHOWS = {
    "astronauta.jpg": "astronauta",
    "caffe.jpg": "tazza di caffè",
    "gatto.jpg": "gatto",
    "razzo.jpg": "razzo",
}


def run(script: str, *arguments: object, folder: Path) -> list[str]:
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_every_photograph_has_its_source_and_stays_small() -> None:
    assert sorted(path.name for path in PHOTOS.glob("*.jpg")) == sorted(SHOWS)
    listed = (PHOTOS / "SOURCES.md").read_text(encoding="utf-8")
    for name in SHOWS:
        assert f"| `{name}` |" in listed
        with Image.open(PHOTOS / name) as photo:
            assert photo.mode == "RGB"
    assert sum((PHOTOS / name).stat().st_size for name in SHOWS) < 600_000


def test_every_example_is_tried_here_and_short() -> None:
    scripts = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert scripts == ["embed_folder.py", "label_photo.py", "search_photos.py"]
    assert all(len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) <= 30 for name in scripts)


@pytest.mark.slow
def test_label_photo_knows_the_cat(tmp_path: Path) -> None:
    best, *others = run("label_photo.py", folder=tmp_path)
    share, label = best.split(maxsplit=1)
    assert label == "gatto"
    assert float(share.removesuffix("%")) >= 90
    assert len(others) == 5


@pytest.mark.slow
@pytest.mark.parametrize(("photo", "label"), SHOWS.items())
def test_label_photo_knows_each_photograph(photo: str, label: str, tmp_path: Path) -> None:
    lines = run("label_photo.py", PHOTOS / photo, *sorted(SHOWS.values()), folder=tmp_path)
    assert lines[0].split(maxsplit=1)[1] == label


@pytest.mark.slow
def test_embed_folder_writes_what_the_library_gives(tmp_path: Path) -> None:
    (line,) = run("embed_folder.py", folder=tmp_path)
    model = clipita.load()
    assert line == f"photos.npz: {len(SHOWS)} photographs, {model.embed_dim} numbers each"
    with np.load(tmp_path / "photos.npz") as stored:
        assert stored["keys"].tolist() == sorted(SHOWS)
        assert str(stored["fingerprint"]) == model.fingerprint
        expected = model.encode_image([PHOTOS / name for name in sorted(SHOWS)])
        np.testing.assert_allclose(stored["embeddings"], expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sentence", "photo"),
    [
        (None, "caffe.jpg"),
        ("un gatto", "gatto.jpg"),
        ("il primo piano di un felino", "gatto.jpg"),
        ("un razzo sulla rampa di lancio", "razzo.jpg"),
        ("il lancio di un razzo nello spazio", "razzo.jpg"),
    ],
)
def test_search_photos_finds_what_the_sentence_says(sentence: str | None, photo: str, tmp_path: Path) -> None:
    lines = run("search_photos.py", *([sentence] if sentence else []), folder=tmp_path)
    assert lines[0].split()[1] == photo
    cosines = [float(line.split()[0]) for line in lines]
    assert len(cosines) == len(SHOWS)
    assert cosines == sorted(cosines, reverse=True)
    assert all(-1 <= cosine <= 1 for cosine in cosines)

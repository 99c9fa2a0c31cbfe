"""An index follows its folder, embeds nothing twice, survives whatever stops it, and finds what is asked for."""

import contextlib
import datetime
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import PHOTOS
from support.tiny_bundle import tiny_config, tiny_files

import clipita
from clipita.bundles.bundle import write_bundle
from clipita.errors import CheckpointError, ClipitaError
from clipita.search.index import Index
from clipita.search.presence import background_phrases, read_presence
from clipita.search.store import Store
from clipita.search.update import UpdateSummary


def picture(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(np.kron(blocks, np.ones((8, 8, 1), np.uint8))).save(path)
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    for number in range(12):
        picture(tmp_path / "foto" / f"{number % 3}" / f"{number}.png", number)
    return tmp_path / "foto"


@pytest.fixture
def model(shared_bundle: Path) -> clipita.Model:
    return clipita.load(shared_bundle)


@pytest.fixture
def index(archive: Path, shared_bundle: Path) -> Index:
    made = Index.open(archive, model=shared_bundle)
    made.update()
    return made


def counts(summary: UpdateSummary) -> dict[str, int]:
    names = ("added", "changed", "moved", "removed", "unchanged", "embedded")
    told = {name: getattr(summary, name) for name in names} | {"failed": len(summary.failed)}
    return {name: count for name, count in told.items() if count}


def keys(index: Index) -> list[str]:
    return sorted(match.path for match in index.similar(next(index.photos.rglob("*.png")), count=1000).matches)


def check_vectors(index: Index, model: clipita.Model) -> None:
    """Every file's vector is the one that the model makes of it."""
    index.export(index.photos.parent / "all.npz")
    with np.load(index.photos.parent / "all.npz") as stored:
        found, vectors = stored["keys"].tolist(), stored["embeddings"]
    assert found == sorted(path.relative_to(index.photos).as_posix() for path in index.photos.rglob("*.png"))
    np.testing.assert_allclose(vectors, model.encode_image([index.photos / key for key in found]), atol=5e-4)


def test_each_change_is_followed_and_nothing_is_embedded_twice(
    archive: Path, shared_bundle: Path, model: clipita.Model
) -> None:
    index = Index.open(archive, model=shared_bundle)
    assert counts(index.update()) == {"added": 12, "embedded": 12}
    assert counts(index.update()) == {"unchanged": 12}
    picture(archive / "nuova.png", 100)
    assert counts(index.update()) == {"added": 1, "embedded": 1, "unchanged": 12}
    (archive / "nuova.png").rename(archive / "rinominata.png")
    assert counts(index.update()) == {"moved": 1, "unchanged": 12}
    (archive / "1").rename(archive / "uno")
    assert counts(index.update()) == {"moved": 4, "unchanged": 9}
    shutil.copy(archive / "0/0.png", archive / "copia.png")
    assert counts(index.update()) == {"added": 1, "unchanged": 13}
    (archive / "copia.png").unlink()
    (archive / "2/2.png").rename(archive.parent / "2.png")
    assert counts(index.update()) == {"removed": 2, "unchanged": 12}
    (archive.parent / "2.png").rename(archive / "2/2.png")
    assert counts(index.update()) == {"added": 1, "unchanged": 12}  # known from before: nothing is embedded
    picture(archive / "2/2.png", 200)
    assert counts(index.update()) == {"changed": 1, "embedded": 1, "unchanged": 12}
    os.utime(archive / "2/2.png")
    assert counts(index.update()) == {"unchanged": 13}
    check_vectors(index, model)
    assert len(index) == 13


def test_the_index_moves_with_the_photographs(archive: Path, index: Index, shared_bundle: Path) -> None:
    moved = archive.rename(archive.with_name("altrove"))
    opened = Index.open(index=moved / ".clipita", model=shared_bundle)
    assert opened.photos == moved
    assert counts(opened.update()) == {"unchanged": 12}


def test_an_index_may_lie_elsewhere(archive: Path, shared_bundle: Path, tmp_path: Path) -> None:
    Index.open(archive, index=tmp_path / "indice", model=shared_bundle).update()
    assert not (archive / ".clipita").exists()
    opened = Index.open(index=tmp_path / "indice")
    assert opened.photos == archive
    assert len(opened.similar(archive / "0/0.png").matches) == 12


def test_a_file_that_cannot_be_read_is_tried_again_when_it_changes(archive: Path, index: Index) -> None:
    (archive / "rotta.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photograph")
    first = index.update()
    assert counts(first) == {"failed": 1, "unchanged": 12}
    assert "rotta.jpg" in first.failed
    assert counts(index.update()) == {"failed": 1, "unchanged": 12}
    picture(archive / "rotta.jpg", 300)
    assert counts(index.update()) == {"added": 1, "embedded": 1, "unchanged": 12}
    (archive / "rotta.jpg").write_bytes(b"GIF89a")
    assert counts(index.update()) == {"failed": 1, "unchanged": 12}
    assert "rotta.jpg" not in [match.path for match in index.similar(archive / "0/0.png", count=100).matches]
    (archive / "rotta.jpg").unlink()
    assert counts(index.update()) == {"removed": 1, "unchanged": 12}


def test_names_of_any_bytes_survive(archive: Path, index: Index) -> None:
    name = os.fsdecode("citt\xe0.png".encode("latin-1"))
    shutil.copy(archive / "0/0.png", archive / name)
    assert counts(index.update()) == {"added": 1, "unchanged": 12}
    (best,) = index.similar(archive / "0/0.png", count=1).matches
    assert {best.path, *best.copies} == {"0/0.png", name}
    assert os.fsencode(best.copies[0]) == "citt\xe0.png".encode("latin-1")


def test_excluded_files_are_left_aside_until_told_otherwise(archive: Path, shared_bundle: Path) -> None:
    index = Index.open(archive, model=shared_bundle)
    summary = index.update(exclude=["2", "*/0.png"])
    assert counts(summary) == {"added": 7, "embedded": 7}
    assert summary.found.counts()["excluded"] == 2
    assert counts(index.update()) == {"unchanged": 7}
    assert counts(index.update(exclude=[])) == {"added": 5, "embedded": 5, "unchanged": 7}


SCRIPT = """
import sys
from clipita.search.index import Index
from clipita.search.presence import background_phrases, read_presence
from clipita.search.update import Progress
class Print(Progress):
    def advance(self, count): print("one", flush=True)
index = Index.open(sys.argv[1], model=sys.argv[2])
print(index.update(batch_size=2, progress=Print()).added, flush=True)
"""


@pytest.mark.slow
@pytest.mark.slow
def test_killed_at_ten_moments_it_goes_on_and_is_whole(
    tmp_path: Path, shared_bundle: Path, model: clipita.Model
) -> None:
    archive = tmp_path / "foto"
    for number in range(60):
        picture(archive / f"{number:02}.png", number)
    command = [sys.executable, "-c", SCRIPT, str(archive), str(shared_bundle)]
    for after in range(1, 11):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(after):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if Index.open(archive).exists:
            index = Index.open(archive, model=model)
            assert len(index.similar(archive / "00.png", count=100).matches) == len(index)
    index = Index.open(archive, model=model)
    index.update()
    assert counts(index.update()) == {"unchanged": 60}
    check_vectors(index, model)


def test_two_updates_at_once_do_not_mix_and_one_may_search_meanwhile(archive: Path, index: Index) -> None:
    with Store(index.folder).writing() as writer:
        writer.remove(["0/0.png"])
        assert len(index.similar(archive / "0/0.png", count=100).matches) == 12
        with pytest.raises(ClipitaError, match="updated by another process"):
            index.update()
    assert counts(index.update()) == {"unchanged": 12}  # what was not committed was not done


@pytest.mark.slow
def test_threads_may_search_while_one_updates(archive: Path, index: Index) -> None:
    stop, errors = threading.Event(), list[BaseException]()

    def search() -> None:
        try:
            while not stop.is_set():
                assert index.search("un gatto nero", show_all=True, count=3).matches
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(400, 420):
            picture(archive / f"{number}.png", number)
            index.update()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert len(index) == 32


FULL_DISK = """
import resource, signal, sys
from clipita.search.index import Index
from clipita.search.presence import background_phrases, read_presence
index = Index.open(sys.argv[1])
index.model
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
index.update()
"""


@pytest.mark.parametrize("more_bytes", [10, 100])  # the vectors do not fit; the vectors fit, and the rows do not
def test_a_full_disk_leaves_the_index_as_it_was(archive: Path, index: Index, more_bytes: int) -> None:
    picture(archive / "nuova.png", 500)
    vectors, rows = index.folder / "vectors.1.f16", index.folder / "index.sqlite"
    size, before = vectors.stat().st_size, rows.read_bytes()
    command = [sys.executable, "-c", FULL_DISK, str(archive), str(size + more_bytes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "cannot be written" in done.stderr, done.stderr
    assert rows.read_bytes() == before
    assert len(index.similar(archive / "nuova.png", count=100).matches) == 12
    assert counts(index.update()) == {"added": 1, "embedded": 1, "unchanged": 12}


def test_contents_that_nobody_holds_are_dropped_in_the_end(archive: Path, index: Index, model: clipita.Model) -> None:
    for path in list(archive.rglob("*.png"))[:9]:
        path.unlink()
    index.update()
    assert len(Store(index.folder).vectors()) == 12
    with Store(index.folder).writing() as writer:
        writer.compact(least=1)
    assert len(Store(index.folder).vectors()) == 3
    assert not (index.folder / "vectors.1.f16").exists()
    check_vectors(index, model)
    picture(archive / "nuova.png", 600)
    assert counts(index.update()) == {"added": 1, "embedded": 1, "unchanged": 3}
    check_vectors(index, model)


def test_an_empty_folder_does_not_empty_its_index(archive: Path, shared_bundle: Path, tmp_path: Path) -> None:
    index = Index.open(archive, index=tmp_path / "indice", model=shared_bundle)
    index.update()
    for path in archive.iterdir():
        shutil.rmtree(path)
    with pytest.raises(
        ClipitaError, match=r"holds no photograph any more, and its index knows 12: is its disk mounted"
    ):
        index.update()
    assert len(index) == 12


def test_photographs_behind_a_link_to_a_disk_that_is_gone_stay(archive: Path, index: Index) -> None:
    disk = archive.parent / "disco"
    (archive / "0").rename(disk)
    (archive / "0").symlink_to(disk)
    assert counts(index.update()) == {"unchanged": 12}
    disk.rename(archive.parent / "staccato")
    assert index.update().removed == 0
    assert len(index) == 12


def test_an_index_made_with_a_model_object_is_opened_by_its_name(archive: Path, model: clipita.Model) -> None:
    Index.open(archive, model=model).update()
    opened = Index.open(archive)
    assert len(opened.search("mare", show_all=True).matches) == 12
    assert opened.model.fingerprint == model.fingerprint


def test_another_model_is_refused(archive: Path, index: Index, tmp_path: Path) -> None:
    write_bundle(tmp_path / "altro", config=tiny_config(), files=tiny_files(seed=1))
    with pytest.raises(CheckpointError, match=r"was made by 'tiny' with fingerprint .* do not mix"):
        Index.open(archive, model=clipita.load(tmp_path / "altro"))
    with pytest.raises(CheckpointError, match="do not mix"):
        Index.open(archive, model=tmp_path / "altro").search("mare")


def test_a_damaged_index_is_named(archive: Path, index: Index, shared_bundle: Path) -> None:
    vectors = index.folder / "vectors.1.f16"
    whole = vectors.read_bytes()
    vectors.write_bytes(whole[:100])
    with pytest.raises(CheckpointError, match=r"vectors\.1\.f16.*delete that folder and index again"):
        Index.open(archive, model=shared_bundle).search("mare")
    vectors.unlink()
    with pytest.raises(CheckpointError, match=r"vectors\.1\.f16 is missing"):
        Index.open(archive, model=shared_bundle).search("mare")
    (index.folder / "index.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(CheckpointError, match="cannot be read: file is not a database"):
        Index.open(archive, model=shared_bundle).search("mare")


def test_a_newer_format_is_refused(archive: Path, index: Index, shared_bundle: Path) -> None:
    with contextlib.closing(sqlite3.connect(index.folder / "index.sqlite")) as rows, rows:
        rows.execute("UPDATE settings SET value = '3' WHERE name = 'format'")
    with pytest.raises(CheckpointError, match="has format 3, and this version of clipita reads 2"):
        Index.open(archive, model=shared_bundle).update()


def test_filters_by_folder_and_date(tmp_path: Path, shared_bundle: Path) -> None:
    for number, (name, date) in enumerate(
        {"a/1.jpg": "2019:08:14 12:00:00", "a/b/2.jpg": "2020:01:01 00:00:00", "c/3.jpg": None}.items()
    ):
        path = picture(tmp_path / "foto" / name, number)
        if date is not None:
            exif = Image.Exif()
            exif.get_ifd(0x8769)[36867] = date
            Image.open(path).save(path, exif=exif)
    index = Index.open(tmp_path / "foto", model=shared_bundle)
    index.update()

    def found(**filters: Any) -> list[str]:
        return sorted(match.path for match in index.search("mare", show_all=True, **filters).matches)

    day = datetime.date
    assert found() == ["a/1.jpg", "a/b/2.jpg", "c/3.jpg"]
    assert found(below="a") == ["a/1.jpg", "a/b/2.jpg"]
    assert found(below="./a/b/") == ["a/b/2.jpg"]
    assert found(below="nessuna") == []
    assert found(since=day(2019, 8, 14), until=day(2019, 8, 14)) == ["a/1.jpg"]
    assert found(since=day(2019, 8, 15)) == ["a/b/2.jpg"]
    assert found(until=day(2019, 12, 31)) == ["a/1.jpg"]
    (best,) = index.similar(tmp_path / "foto/a/1.jpg", count=1).matches
    assert (best.path, best.taken, best.width, best.height) == ("a/1.jpg", datetime.datetime(2019, 8, 14, 12), 32, 32)


def test_of_copies_the_one_in_the_folder_asked_for_comes_first(archive: Path, index: Index) -> None:
    shutil.copy(archive / "0/0.png", archive / "2/copia.png")
    index.update()
    (match,) = index.search("mare", below="2", show_all=True, count=1, more=[(archive / "0/0.png", 100.0)]).matches
    assert (match.path, match.copies) == ("2/copia.png", ("0/0.png",))


def test_vectors_are_exchanged_with_files_of_embed(archive: Path, index: Index, shared_bundle: Path) -> None:
    for time, suffix in enumerate((".npz", ".parquet")):
        file = archive.parent / f"tutte{suffix}"
        assert index.export(file) == 12
        other = Index.open(archive, index=archive.parent / suffix, model=shared_bundle)
        os.utime(archive / "0/0.png", (time, time))  # changed since: left to the update
        assert other.import_embeddings(file) == 11
        assert counts(other.update()) == {"added": 1, "embedded": 1, "unchanged": 11}
        assert index.update().changed == 0


def test_vectors_of_another_model_are_not_imported(archive: Path, index: Index, tmp_path: Path) -> None:
    write_bundle(tmp_path / "altro", config=tiny_config(), files=tiny_files(seed=1))
    other = Index.open(archive, index=tmp_path / "indice", model=tmp_path / "altro")
    other.update()
    other.export(tmp_path / "altre.npz")
    with pytest.raises(CheckpointError, match="do not mix"):
        index.import_embeddings(tmp_path / "altre.npz")


def test_an_index_that_cannot_be_written_is_searched(archive: Path, index: Index, shared_bundle: Path) -> None:
    if os.geteuid() != 0:
        index.folder.chmod(0o500)
    opened = Index.open(archive, model=shared_bundle)
    try:
        assert len(opened.search("mare", show_all=True).matches) == 12
    finally:
        index.folder.chmod(0o755)


def test_more_and_less_move_the_query(archive: Path, index: Index) -> None:
    def scores(**how: Any) -> dict[str, float]:
        return {match.path: match.score for match in index.search("mare", show_all=True, count=12, **how).matches}

    plain, more, less = scores(), scores(more=[archive / "0/0.png"]), scores(less=[(archive / "0/0.png", 2.0)])
    assert more["0/0.png"] > plain["0/0.png"] > less["0/0.png"]
    assert scores(more=[("gatto", 0.0)]) == pytest.approx(plain, abs=1e-5)


def test_there_is_no_index_before_the_first_update(archive: Path, shared_bundle: Path) -> None:
    with pytest.raises(ClipitaError, match=r"there is no index in .*\.clipita'. Make one first: clipita index"):
        Index.open(archive, model=shared_bundle).search("mare")


def test_the_embedded_model_finds_and_says_when_it_does_not(tmp_path: Path) -> None:
    shutil.copytree(PHOTOS, tmp_path / "foto")
    index = Index.open(tmp_path / "foto")
    index.update()
    for sentence, name in {"un gatto": "gatto.jpg", "una tazza di caffè": "caffe.jpg", "un razzo": "razzo.jpg"}.items():
        result = index.search(sentence, count=1)
        assert result.found
        assert result.matches[0].path == name
    nothing = index.search("il fondo del mare")
    assert nothing == type(nothing)(False, [])
    nearest = index.search("il fondo del mare", show_all=True)
    assert not nearest.found
    assert len(nearest.matches) == 4


def test_nothing_found_is_judged_by_numbers_of_the_embedded_model() -> None:
    model = clipita.load()
    presence = read_presence(model.fingerprint)
    assert presence is not None
    assert presence.fingerprints == (model.fingerprint, clipita.load(exact=True).fingerprint)
    assert len(background_phrases()) == len(presence.background.vectors)
    some = list(range(0, len(presence.background.vectors), 100))
    vectors = model.encode_text([background_phrases()[number] for number in some])
    assert ((vectors * presence.background.vectors[some]).sum(axis=1) > 0.999).all()
    assert read_presence("another") is None

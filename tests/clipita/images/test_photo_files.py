"""Which files of a folder are photographs, and what is said of the others."""

import os
import socket
import sys
from pathlib import Path

import pytest
from PIL import Image

from clipita.images.photo_files import PhotoFiles, find_photos, is_picture_name, readable_suffixes
from clipita.images.pixels import FORMATS


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def test_what_pillow_opens_in_our_formats_is_read() -> None:
    Image.init()
    formats = {*FORMATS, "MPO"} - {"HEIF"}  # an MPO is opened as the JPEG that it begins with
    assert {suffix for suffix, name in Image.registered_extensions().items() if name in formats} <= readable_suffixes()
    names = ("a.JPG", "b.jpe", "c.jfif", "d.apng", "e.mpo", "f.pnm", "g.pbm", "h.j2k", "i.Tiff")
    assert all(Path(name).suffix.lower() in readable_suffixes() and is_picture_name(name) for name in names)


@pytest.mark.parametrize(
    "name",
    [
        "@eaDir/IMG_1.JPG/SYNOPHOTO_THUMB_XL.jpg",
        "#recycle/x.jpg",
        "#snapshot/GMT+02-2024.01.01/x.jpg",
        ".@__thumb/s800x.jpg",
        "@Recycle/x.jpg",
        "@Recently-Snapshot/GMT+01/x.jpg",
        "$RECYCLE.BIN/S-1-5-21/$R1.jpg",
        "System Volume Information/x.jpg",
        ".Trashes/501/x.jpg",
        ".Trash-1000/files/x.jpg",
        ".thumbnails/normal/x.png",
        "Catalogo Previews.lrdata/0/x.jpg",
        ".picasaoriginals/x.jpg",
        ".dtrash/files/x.jpg",
        "LOST.DIR/x.jpg",
        "lost+found/x.jpg",
        "__MACOSX/foto/x.jpg",
        "Libreria.photoslibrary/resources/derivatives/x.jpeg",
        "._x.jpg",
        ".x.jpg",
    ],
)
def test_thumbnails_and_bins_of_other_programs_are_left_aside(name: str, tmp_path: Path) -> None:
    inside = make(tmp_path / "foto", "2023/IMG_1.JPG", name, f"2023/mare/{name}")
    found = find_photos(inside)
    assert found.keys == ["2023/IMG_1.JPG"]
    (reason,) = found.left_aside
    assert found.counts() == {reason: 2}
    assert reason in ("hidden", "thumbnails_and_bins")


def test_apples_library_is_read_where_its_originals_are(tmp_path: Path) -> None:
    folder = make(tmp_path, "L.photoslibrary/originals/0/A.jpeg", "L.photoslibrary/resources/0/A.jpeg")
    assert find_photos(folder).keys == ["L.photoslibrary/originals/0/A.jpeg"]


def test_a_folder_that_is_named_itself_is_read_whatever_it_is_called(tmp_path: Path) -> None:
    assert find_photos(make(tmp_path / "@Recycle", "x.jpg")).keys == ["x.jpg"]


def test_all_that_is_left_aside_is_counted_with_what_would_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rawpy", None)  # as if it were not installed
    make(
        tmp_path, "a.jpg", "b.NEF", "c.dng", "d.cr2", "e.nef", "f.psd", "g.svg", "h.mov", "i.mov", "README", ".DS_Store"
    )
    found = find_photos(tmp_path)
    assert found.keys == ["a.jpg"]
    assert found.counts() == {"raw": 4, "other_formats": 2, "no_pictures": 3}
    assert found.describe() == (
        "Left aside: 4 raw (.nef, .dng, .cr2): pip install 'clipita[raw]' reads their previews; 2 in formats that are "
        "not read (.psd, .svg): export as JPEG or PNG; 3 that are no pictures (.mov, without ending)."
    )
    (tmp_path / "a.jpg").rename(tmp_path / "b.jpg")
    assert find_photos(make(tmp_path / "vuota", "x.jpg")).describe() == ""


def test_heic_is_read_where_its_decoder_is_and_names_it_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path / "foto", "IMG_1.HEIC", "b.hif", "c.heif")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "pacchetti"), *sys.path])
    make(tmp_path / "pacchetti", "altro.py")
    if "pillow_heif" not in sys.modules:  # one that is not here is found once its folder is on the path
        make(tmp_path / "pacchetti", "pillow_heif.py")
    assert find_photos(folder).keys == ["IMG_1.HEIC", "b.hif", "c.heif"]
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    found = find_photos(folder)
    assert (found.keys, found.counts()) == ([], {"heif": 3})
    assert "3 in HEIC (.heic, .hif, .heif): pip install 'clipita[heic]' reads it" in found.describe()


def test_only_files_are_opened(tmp_path: Path) -> None:
    make(tmp_path, "vera.jpg")
    os.mkfifo(tmp_path / "x.jpg")
    (tmp_path / "y.jpg").symlink_to("/dev/zero")
    (tmp_path / "z.jpg").symlink_to(tmp_path / "vera.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "s.jpg"))
        found = find_photos(tmp_path)
    assert found.keys == ["vera.jpg", "z.jpg"]
    assert found.left_aside == {"not_regular": ["s.jpg", "x.jpg", "y.jpg"]}
    (tmp_path / "z.jpg").unlink()
    (tmp_path / "z.jpg").symlink_to(tmp_path / "z.jpg")
    (tmp_path / "w.jpg").symlink_to(tmp_path / "assente.jpg")
    failed = find_photos(tmp_path).failed
    assert failed["w.jpg"].startswith("is a link to a file that does not exist")
    assert failed["z.jpg"].startswith("cannot be looked at: Too many levels")


def links_of(folder: Path, **links: Path) -> PhotoFiles:
    for name, target in links.items():
        (folder / name).symlink_to(target, target_is_directory=True)
    return find_photos(folder)


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    library, disk = make(tmp_path / "libreria", "z/a.jpg"), make(tmp_path / "disco", "b.jpg", "2020/c.jpg")
    (disk / "intorno").symlink_to(disk)
    found = links_of(library, ancora=disk / "2020", estate=library / "z", sempre=disk)
    # What is there without a link keeps its path, though a link has an earlier name.
    assert found.keys == ["ancora/c.jpg", "sempre/b.jpg", "z/a.jpg"]
    assert found.left_aside == {
        "read_already": ["estate", "sempre/2020"],
        "leads_back_up": ["sempre/intorno"],
    }
    assert found.failed == {}


def test_a_link_back_up_embeds_nothing_twice_and_nothing_outside(tmp_path: Path) -> None:
    library = make(tmp_path / "casa" / "libreria", "a.jpg")
    make(tmp_path / "casa", "documenti/carta.jpg")
    found = links_of(library, qui=library, su=tmp_path / "casa", radice=Path("/"))
    assert found.keys == ["a.jpg"]
    assert found.left_aside == {"leads_back_up": ["qui", "radice", "su"]}
    assert "3 links back up to folders they are in (qui, radice, su)" in found.describe()


def test_a_folder_given_by_a_link_is_read(tmp_path: Path) -> None:
    make(tmp_path / "disco", "a.jpg")
    (tmp_path / "foto").symlink_to(tmp_path / "disco")
    assert find_photos(tmp_path / "foto").keys == ["a.jpg"]


def test_what_a_link_to_nothing_held_may_still_be_there(tmp_path: Path) -> None:
    found = links_of(make(tmp_path, "a.jpg"), vacanze=tmp_path / "smontato")
    assert found.left_aside == {"links_to_nothing": ["vacanze"]}
    assert found.may_hold("vacanze/2020/b.jpg")
    assert not found.may_hold("vacanze.jpg")
    assert not find_photos(tmp_path / "nessuna").keys
    assert find_photos(tmp_path / "nessuna").may_hold("qualsiasi.jpg")  # it cannot be listed

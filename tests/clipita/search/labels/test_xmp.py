"""Labels go into XMP files that other programs read, and nothing of theirs is ever lost."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clipita.search.labels.labeling import Labelled, LabelMatch
from clipita.search.labels.sidecars import SidecarSummary, write_sidecars
from clipita.search.labels.xmp import EMPTY, XmpError, with_keywords

CAT, SEA = ("Animali", "Felini", "gatto"), ("mare",)
ALL = [CAT, SEA, ("montagna",)]

# As darktable and Lightroom write them: other prefixes and fields, attributes over several lines, Windows' line ends, a
# packet wrapper, keywords of the user's own.
DARKTABLE = b"""<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:darktable="http://darktable.sf.net/"
    xmlns:dc="http://purl.org/dc/elements/1.1/"
   xmp:Rating="4"
   darktable:history_end="2">
   <!-- of a person -->
   <darktable:history>
    <rdf:Seq>
     <rdf:li darktable:operation="exposure" darktable:params="a&gt;b"/>
    </rdf:Seq>
   </darktable:history>
   <dc:subject>
    <rdf:Bag>
     <rdf:li>vacanze</rdf:li>
     <rdf:li>Mare</rdf:li>
    </rdf:Bag>
   </dc:subject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""
LIGHTROOM = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\r\n<x:xmpmeta xmlns:x="adobe:ns:meta/">\r\n'
    b' <r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\r\n'
    b'  <r:Description r:about="" xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/" crs:Exposure2012="+0.35" '
    b'crs:Look="a&gt;b"/>\r\n </r:RDF>\r\n</x:xmpmeta>\r\n<?xpacket end="w"?>'
)
# Right too, though no program writes it: no prefix, an empty list, a ">" in a value.
BARE = (
    b'\xef\xbb\xbf<RDF xmlns="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><Description about="a>b"><dc:subject '
    b'xmlns:dc="http://purl.org/dc/elements/1.1/"><Bag/></dc:subject></Description></RDF>'
)


def labelled(path: str, *labels: str) -> Labelled:
    return Labelled(path, [LabelMatch(label, 0.5, 0.3) for label in labels])


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (1, 2, 3)).save(path)
    return path


def write(folder: Path, *items: Labelled) -> SidecarSummary:
    return write_sidecars(folder, items, ALL)


def exiftool(path: Path) -> dict[str, Any]:
    command = ["exiftool", "-j", "-G1", "-struct", "-n", str(path)]
    (read,) = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert not [name for name in read if name.endswith(("Warning", "Error"))], read
    return {name: value for name, value in read.items() if name.startswith("XMP")}


needs_exiftool = pytest.mark.skipif(
    shutil.which("exiftool") is None, reason="needs exiftool, which reads XMP: apt-get install libimage-exiftool-perl"
)


@needs_exiftool
@pytest.mark.parametrize("before", [None, DARKTABLE, LIGHTROOM])
def test_another_program_reads_the_keywords_and_all_that_was_there(tmp_path: Path, before: bytes | None) -> None:
    photo, sidecar = picture(tmp_path / "a.jpg"), tmp_path / "a.jpg.xmp"
    original, old = photo.read_bytes(), dict[str, Any]()
    if before is not None:
        sidecar.write_bytes(before)
        old = exiftool(sidecar)
    assert write(tmp_path, labelled("a.jpg", "gatto", "mare")).written == [sidecar]
    new = exiftool(sidecar)
    had = old.get("XMP-dc:Subject", [])
    added = ["Animali", "Felini", "gatto", *([] if "Mare" in had else ["mare"])]
    assert new["XMP-dc:Subject"] == [*had, *added]
    assert new["XMP-lr:HierarchicalSubject"] == ["Animali|Felini|gatto", "mare"]
    assert new["XMP-digiKam:TagsList"] == ["Animali/Felini/gatto", "mare"]
    ours = ("XMP-dc:Subject", "XMP-lr:", "XMP-digiKam:", "XMP-clipita:")
    assert {name: value for name, value in new.items() if not name.startswith(ours) and name != "XMP-x:XMPToolkit"} == {
        name: value for name, value in old.items() if not name.startswith(ours) and name != "XMP-x:XMPToolkit"
    }
    assert photo.read_bytes() == original


@pytest.mark.parametrize("before", [EMPTY.encode(), DARKTABLE, LIGHTROOM, BARE])
def test_twice_gives_the_same_and_taking_all_out_gives_what_was_there(before: bytes) -> None:
    once = with_keywords(before, [CAT, SEA], ALL)
    assert with_keywords(once, [CAT, SEA], ALL) == once
    assert with_keywords(before, [], ALL) == before
    back = with_keywords(once, [], ALL)
    if before == LIGHTROOM:  # its empty element has two tags now
        assert back == before.replace(b'b"/>', b'b">\r\n  </r:Description>')
    elif before == BARE:  # so has its empty list, which is gone
        assert back == b"".join(before.partition(b'"a>b">')[:2]) + b"</Description></RDF>"
    else:
        assert back == before


def test_every_byte_of_others_stays() -> None:
    after = with_keywords(DARKTABLE, [CAT, SEA], ALL)
    rest = iter(after.splitlines())
    assert all(line in rest for line in DARKTABLE.splitlines())  # in their order
    assert after.count(b"Mare") == 1
    assert b"<rdf:li>mare</rdf:li>" not in after.split(b"</dc:subject>")[0]
    assert b"Mare" in with_keywords(after, [], ALL)  # it was the user's


def test_labels_of_another_list_stay() -> None:
    animals = with_keywords(None, [CAT], [CAT])
    both = with_keywords(animals, [SEA], [SEA])
    assert both.count(b"<rdf:li>gatto</rdf:li>") == 2
    assert with_keywords(both, [SEA], [CAT, SEA]) == with_keywords(None, [SEA], [SEA])


def test_a_label_that_moved_in_the_hierarchy_is_not_there_twice() -> None:
    moved = with_keywords(with_keywords(None, [CAT], [CAT]), [("gatto",)], [("gatto",), *ALL])
    assert b"Animali" not in moved
    assert moved.count(b"<rdf:li>gatto</rdf:li>") == 6


def test_what_another_program_deleted_is_given_again_and_its_own_is_left() -> None:
    once = with_keywords(None, [SEA], ALL)
    assert b"<dc:subject" in once
    without = once.replace(b"<rdf:li>mare</rdf:li>", b"<rdf:li>lago</rdf:li>", 1)
    again = with_keywords(without, [SEA], ALL)
    assert [again.count(b">lago<"), again.count(b">mare<")] == [1, 6]
    last = with_keywords(again, [], ALL)
    assert [last.count(b">lago<"), last.count(b">mare<")] == [1, 0]


BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
OUTSIDE = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("xmp", "message"),
    [
        (DARKTABLE.replace(b"<x:", BOMB + b"<x:", 1).replace(b"vacanze", b"&b;"), "it has a DOCTYPE"),
        (DARKTABLE.replace(b"<x:", OUTSIDE + b"<x:", 1).replace(b"vacanze", b"&a;"), "it has a DOCTYPE"),
        (DARKTABLE.replace(b"vacanze", b"&a;"), "it is no XML"),
        (DARKTABLE[:600], "it is no XML"),
        (b"", "it is no XML"),
        (b"\xff\xd8\xff\xe0", "it is no XML"),
        (DARKTABLE.decode().replace("UTF-8", "UTF-16").encode("utf-16"), "it is"),
        (DARKTABLE.replace(b"UTF-8", b"ISO-8859-1"), "it is in ISO-8859-1"),
        (b"<html/>", "it is no XMP"),
        (b"<a>" * 100_000 + b"</a>" * 100_000, "it is no XMP"),
        (DARKTABLE.replace(b"<rdf:Bag>", b"<rdf:Bag>x</rdf:Bag><rdf:Bag>"), "its dc:subject is not a list"),
        (DARKTABLE.replace(b"xmp:Rating", b"dc:subject"), "its dc:subject is not a list"),
    ],
)
def test_what_cannot_be_understood_is_named_and_left_alone(tmp_path: Path, xmp: bytes, message: str) -> None:
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "b.jpg")
    (tmp_path / "a.jpg.xmp").write_bytes(xmp)
    done = write(tmp_path, labelled("a.jpg", "gatto"), labelled("b.jpg", "gatto"))
    assert list(done.failed) == ["a.jpg"]
    assert message in done.failed["a.jpg"]
    assert (tmp_path / "a.jpg.xmp").read_bytes() == xmp
    assert done.written == [tmp_path / "b.jpg.xmp"]
    assert sorted(os.listdir(tmp_path)) == ["a.jpg", "a.jpg.xmp", "b.jpg", "b.jpg.xmp"]
    with pytest.raises(XmpError):
        with_keywords(xmp, [CAT], ALL)


def test_the_file_that_is_there_is_the_one_that_is_changed(tmp_path: Path) -> None:
    for name in ("solo.jpg", "raw.jpg", "due.jpg", "due.png", "MAIUSCOLE.JPG", "nuova.jpg", "niente.jpg"):
        picture(tmp_path / name)
    (tmp_path / "raw.cr2").write_bytes(b"raw")
    for name in ("solo.xmp", "raw.xmp", "due.xmp", "MAIUSCOLE.JPG.XMP", "MAIUSCOLE.XMP"):
        (tmp_path / name).write_bytes(LIGHTROOM)
    names = ["MAIUSCOLE.JPG", "due.jpg", "due.png", "nuova.jpg", "raw.jpg", "solo.jpg"]
    done = write(tmp_path, *[labelled(name, "mare") for name in names], labelled("niente.jpg"))
    assert [path.name for path in done.written] == [
        "MAIUSCOLE.JPG.XMP",
        "due.jpg.xmp",
        "due.png.xmp",
        "nuova.jpg.xmp",
        "raw.jpg.xmp",
        "solo.xmp",
    ]
    assert not (tmp_path / "niente.jpg.xmp").exists()
    assert write(tmp_path, *[labelled(name, "mare") for name in names]).written == []
    assert write(tmp_path, *[labelled(name) for name in names]).unchanged == 0
    assert not (tmp_path / "nuova.jpg.xmp").exists()  # nothing but clipita's was in it
    assert b"mare" not in (tmp_path / "solo.xmp").read_bytes()


def test_links_modes_and_photographs_that_are_gone(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    (tmp_path / "altrove").mkdir()
    target = tmp_path / "altrove/a.xmp"
    target.write_bytes(DARKTABLE)
    target.chmod(0o640)
    (tmp_path / "a.jpg.xmp").symlink_to(target)
    done = write(tmp_path, labelled("a.jpg", "gatto"), labelled("via.jpg", "gatto"))
    assert (tmp_path / "a.jpg.xmp").is_symlink()
    assert b"gatto" in target.read_bytes()
    assert target.stat().st_mode & 0o777 == 0o640
    assert done.failed == {"via.jpg": "its XMP file cannot be written: the photograph is gone."}


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from clipita.search.labels.labeling import Labelled, LabelMatch
from clipita.search.labels.sidecars import write_sidecars
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
done = write_sidecars(Path(sys.argv[1]), [Labelled("a.jpg", [LabelMatch("mare", 1.0, 1.0)])], [("mare",)])
print(done.failed)
"""


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    (tmp_path / "a.jpg.xmp").write_bytes(DARKTABLE)
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "its XMP file cannot be written: File too large." in done.stdout
    assert (tmp_path / "a.jpg.xmp").read_bytes() == DARKTABLE
    assert sorted(os.listdir(tmp_path)) == ["a.jpg", "a.jpg.xmp"]


@given(
    st.sampled_from([None, DARKTABLE, LIGHTROOM, BARE]),
    st.lists(st.lists(st.text(min_size=1), min_size=1, max_size=3), max_size=4),
    st.lists(st.lists(st.text(min_size=1), min_size=1, max_size=3), max_size=4),
)
def test_any_label_is_written_once_and_leaves_what_was_there(
    before: bytes | None, first: list[list[str]], second: list[list[str]]
) -> None:
    among = first + second
    once = with_keywords(before, first, among)
    assert with_keywords(once, first, among) == once
    twice = with_keywords(once, second, among)
    assert with_keywords(twice, second, among) == twice
    if before == DARKTABLE:
        rest = iter(twice.splitlines())
        assert all(line in rest for line in DARKTABLE.splitlines())


def test_separators_in_labels_are_no_levels() -> None:
    label = ("Bianco/nero", "a|b/c")
    once = with_keywords(None, [label], [label])
    for keyword in (b"<rdf:li>Bianco/nero|a-b/c<", b"<rdf:li>Bianco-nero/a|b-c<", b"<rdf:li>a|b/c<"):
        assert once.count(keyword) == 2
    assert with_keywords(once, [], [label]) == EMPTY.encode()

import gzip
import io
import json
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clipita_train.data.pairs import lines
from clipita_train.data.pairs.lines import read_lines
from clipita_train.data.pairs.readers import (
    WIT_COLUMNS,
    conceptual_3m,
    conceptual_12m,
    json_lines,
    mscoco_it,
    sidecars,
    wit,
)
from clipita_train.data.pairs.rows import Bad, Row, Tally
from clipita_train.data.pairs.tables import table, web_dataset

PAGE, IMAGE = "https://it.wikipedia.org/wiki/Gubbio", "https://upload.wikimedia.org/wikipedia/commons/a/a1/Gubbio.jpg"
TERMS = {"source": "mine", "licence": "CC0"}


def wit_line(
    language: str = "it", image: str = IMAGE, reference: str = "", attribution: str = "", alt: str = ""
) -> str:
    cells = dict.fromkeys(WIT_COLUMNS, "")
    cells |= {"language": language, "page_url": PAGE, "image_url": image, "mime_type": "image/jpeg"}
    cells["caption_reference_description"], cells["caption_attribution_description"] = reference, attribution
    cells["caption_alt_text_description"] = alt
    return "\t".join(cells.values())


def read(items: object) -> tuple[list[Row], Tally]:
    tally = Tally()
    return list(tally.good(items)), tally  # type: ignore[arg-type]


def test_wit_gives_the_rows_of_one_language_with_the_captions_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "wit_v1.train.all-00000-of-00010.tsv.gz"
    text = [
        "\t".join(WIT_COLUMNS),
        wit_line(reference="Il palazzo dei Consoli ", attribution="English: Palace Italiano: Palazzo"),
        wit_line("en", reference="A palace"),
        wit_line(alt="Una piazza"),
        wit_line(reference="Una torre", alt="Una torre"),
    ]
    path.write_bytes(gzip.compress("\n".join(text).encode()))
    rows, tally = read(wit(path))
    assert [(row.key, row.captions) for row in rows] == [
        (f"{path.name}:2", ("Il palazzo dei Consoli",)),
        (f"{path.name}:5", ("Una torre",)),
    ]
    assert (rows[0].image, rows[0].page, rows[0].language, tally.bad.total()) == (IMAGE, PAGE, "it", 0)
    rows, _ = read(wit(path, captions=("reference", "attribution", "alt_text")))
    assert [row.captions for row in rows] == [
        ("Il palazzo dei Consoli", "English: Palace Italiano: Palazzo"),
        ("Una piazza",),
        ("Una torre",),
    ]
    with pytest.raises(ValueError, match="no captions of the kind 'alt'; there are: reference, attribution, alt_text"):
        read(wit(path, captions=("alt",)))


def test_broken_lines_of_wit_are_counted_and_named(tmp_path: Path) -> None:
    path = tmp_path / "wit.tsv.gz"
    good = wit_line(reference="Una torre").encode()
    packed = gzip.compress(
        b"\n".join([good, b"it\tx", good[:-1] + b"\t\xff", wit_line(image="x").encode(), good, good])
    )
    path.write_bytes(packed)
    rows, tally = read(wit(path))
    assert [row.key for row in rows] == ["wit.tsv.gz:1", "wit.tsv.gz:5", "wit.tsv.gz:6"]
    assert tally.places == {
        "a line without 17 columns": ["wit.tsv.gz:2"],
        "not UTF-8": ["wit.tsv.gz:3"],
        "no address of an image": ["wit.tsv.gz:4"],
    }
    assert str(tally).startswith("3 rows read, 3 bad\n1 x a line without 17 columns: wit.tsv.gz:2\n")
    path.write_bytes(packed[:-9])  # the checksum, and a byte before it
    rows, tally = read(wit(path))
    assert len(rows) >= 2
    assert tally.bad["the gzip ends early"] == 1
    path.write_bytes(gzip.compress(good + b"\n") + b"no gzip")
    rows, tally = read(wit(path))
    assert len(rows) == 1
    assert tally.places == {"the gzip is damaged from here on": ["wit.tsv.gz:2"]}
    path.write_bytes(b"")
    assert read(wit(path))[1].places == {"the file is empty": ["wit.tsv.gz"]}


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_lines_are_the_same_however_the_file_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(lines, "CHUNK", chunk)
    monkeypatch.setattr(lines, "LONGEST", 12)
    data = "\ufeffprima\r\nperch\u2028é\n\n".encode() + b"x" * 30 + b"\nultima"
    plain, packed = tmp_path / "a.tsv", tmp_path / "a.tsv.gz"
    plain.write_bytes(data)
    packed.write_bytes(gzip.compress(data[:9]) + gzip.compress(data[9:]))
    for path in (plain, packed):
        assert list(read_lines(path)) == [
            (f"{path.name}:1", "prima"),
            (f"{path.name}:2", "perch\u2028é"),
            (f"{path.name}:3", ""),
            Bad(f"{path.name}:4", "a line of more than 12 bytes"),
            (f"{path.name}:5", "ultima"),
        ]


def test_conceptual_captions_have_caption_and_address_in_either_order(tmp_path: Path) -> None:
    path = tmp_path / "Train_GCC-training.tsv"
    path.write_text(f"a very typical bus station\t{IMAGE}\n \t{IMAGE}\nsierra\tx\nsierra\n")
    rows, tally = read(conceptual_3m(path))
    assert [(row.image, row.captions, row.language) for row in rows] == [(IMAGE, ("a very typical bus station",), "en")]
    assert set(tally.bad) == {"a blank caption", "no address of an image", "a line without 2 columns"}
    path.write_text(f"{IMAGE}\tMetal Design Within Reach Ping Pong Table\n")
    (row,), _ = read(conceptual_12m(path))
    assert (row.image, row.captions) == (IMAGE, ("Metal Design Within Reach Ping Pong Table",))


def test_json_lines_and_missing_or_empty_images(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"jpeg")
    (tmp_path / "b.jpg").touch()
    fields = [{"image_path": name, "captions": ["un ponte", " "]} for name in ("x/a.jpg", "b.jpg", "c.jpg")]
    more = ["{", "[]", '{"image_path": 1, "captions": []}', '{"image_path": "a.jpg", "captions": []}']
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join([*map(json.dumps, fields), *more]))
    rows, tally = read(json_lines(path, tmp_path, **TERMS))
    assert rows == [Row("mine", "train.jsonl:1", tmp_path / "a.jpg", ("un ponte",), "it", "CC0")]
    assert tally.bad.total() == 6
    assert tally.places["an image of zero bytes"] == ["train.jsonl:2"]
    assert tally.places["the image is missing"] == ["train.jsonl:3"]


def test_mscoco_it_is_joined_to_both_folders_of_coco(tmp_path: Path) -> None:
    for name in ("train2014/COCO_train2014_000000000009.jpg", "val2014/COCO_val2014_000000000042.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"jpeg")
    annotations = [(9, "un pranzo"), (42, "un uccello"), ("9", "una scatola"), (7, "nessuno")]
    data = {"annotations": [{"image_id": number, "id": 1, "caption": caption} for number, caption in annotations]}
    path = tmp_path / "captions_ita_trainingset_train2014.json.gz"
    path.write_bytes(gzip.compress(json.dumps(data).encode()))
    rows, tally = read(mscoco_it(path, tmp_path))
    assert [(Path(str(row.image)).name, row.captions) for row in rows] == [
        ("COCO_train2014_000000000009.jpg", ("un pranzo", "una scatola")),
        ("COCO_val2014_000000000042.jpg", ("un uccello",)),
    ]
    assert tally.places == {"the image is missing": ["COCO_val2014_000000000007.jpg"]}
    path.write_text("{")
    assert read(mscoco_it(path, tmp_path))[1].bad.total() == 1


def test_a_folder_with_captions_beside_its_images(tmp_path: Path) -> None:
    for name in ("b.jpg", "sub/a.PNG", "c.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"image")
    (tmp_path / "b.txt").write_text("una barca\nun lago\n")
    (tmp_path / "sub/a.txt").write_bytes(b"caff\xe8\n")
    rows, tally = read(sidecars(tmp_path, **TERMS))
    assert [(row.key, row.captions) for row in rows] == [("b.jpg", ("una barca", "un lago"))]
    assert tally.places == {
        "no captions beside the image": ["c.webp"],
        "not UTF-8": ["a.txt:1"],
        "no captions": ["sub/a.PNG"],
    }


def test_what_is_beside_photographs_is_no_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rawpy", None)  # as if it were not installed
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(b"image")
        (tmp_path / f"{number}.NEF").write_bytes(b"raw")  # a camera writes both, and the captions are of the other
        (tmp_path / f"._{number}.jpg").write_bytes(b"\0\5\x16\7")  # a Mac's
        (tmp_path / f"{number}.txt").write_text(f"la foto {number}")
    (tmp_path / "@eaDir" / "0.jpg").mkdir(parents=True)
    (tmp_path / "@eaDir" / "0.jpg" / "SYNOPHOTO_THUMB_M.jpg").write_bytes(b"image")
    for name in ("solo.NEF", "solo.txt", "senza.NEF"):
        (tmp_path / name).write_text("un ritratto")
    (tmp_path / "rotta.jpg").symlink_to(tmp_path / "assente.jpg")
    rows, tally = read(sidecars(tmp_path, **TERMS))
    assert [row.key for row in rows] == ["0.jpg", "1.jpg", "2.jpg"]
    assert tally.places == {
        "is a link to a file that does not exist. Delete it, or bring the file back.": ["rotta.jpg"],
        "raw: pip install 'clipita[raw]' reads their previews": ["solo.NEF"],
    }
    monkeypatch.undo()
    pytest.importorskip("rawpy")
    rows, tally = read(sidecars(tmp_path, **TERMS))
    assert [row.key for row in rows] == ["0.jpg", "1.jpg", "2.jpg", "solo.NEF"]
    assert tally.places["no captions beside the image"] == ["senza.NEF"]


def test_a_macs_archive_has_no_pairs_of_hidden_files(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, data in {
            "._0.jpg": b"\0\5\x16\7",
            "0.jpg": b"image",
            "._0.txt": b"\0",
            "0.txt": b"una barca",
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    rows, tally = read(web_dataset(tmp_path / "a.tar", **TERMS))
    assert [(row.key, row.image, row.captions) for row in rows] == [("a.tar:0", b"image", ("una barca",))]
    assert not tally.bad


def test_csv(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"jpeg")
    path = tmp_path / "a.csv"
    path.write_bytes(
        f'caption,image\n"un ponte,\ndi notte",a.jpg\nsolo\nuna via,{IMAGE}\ncaff'.encode() + b"\xe8,a.jpg\n"
    )
    rows, tally = read(table(path, tmp_path, **TERMS))
    assert [(row.image, row.captions) for row in rows] == [
        (tmp_path / "a.jpg", ("un ponte,\ndi notte",)),
        (IMAGE, ("una via",)),
    ]
    assert tally.places == {"a row without 2 columns": ["a.csv:row 2"], "not UTF-8": ["a.csv:6"]}
    path.write_text(f'\ncaption,image\nx"y,{IMAGE}\n"x"y,{IMAGE}\nuna via,{IMAGE}\n"senza fine,{IMAGE}\nx,{IMAGE}\n')
    rows, tally = read(table(path, tmp_path, **TERMS))
    assert [row.captions for row in rows] == [('x"y',), ("una via",)]
    assert tally.places == {
        "a row without 2 columns": ["a.csv:row 3", "a.csv:row 5"],
        "a row without 0 columns": ["a.csv:row 0"],
    }
    with pytest.raises(ValueError, match="has no column 'didascalia'; it has: caption, image"):
        read(table(path, tmp_path, caption_column="didascalia", **TERMS))


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    images = [{"bytes": b"jpeg", "path": None}, {"bytes": b"", "path": ""}, None]
    pq.write_table(pa.table({"image": images, "caption": [["un gatto", "un micio"], ["x"], ["y"]]}), path)
    rows, tally = read(table(path, tmp_path, **TERMS))
    assert [(row.image, row.captions) for row in rows] == [(b"jpeg", ("un gatto", "un micio"))]
    assert tally.places == {"the image is missing": ["a.parquet:row 2", "a.parquet:row 3"]}
    path.write_bytes(path.read_bytes()[:-20])
    assert read(table(path, tmp_path, **TERMS))[1].places == {"not Parquet, or damaged": ["a.parquet"]}


def test_web_dataset_and_one_that_ends_early(tmp_path: Path) -> None:
    path = tmp_path / "00000.tar"
    files = {"a/1.jpg": b"jpeg", "a/1.txt": b"una barca", "a/2.jpg": b"", "a/2.txt": b"x"}
    files |= {"b.png": b"png", "b.json": b'{"caption": "una nave"}', "c.jpg": b"jpeg", "c.json": b"{}"}
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    rows, tally = read(web_dataset(path, **TERMS))
    assert [(row.key, row.image, row.captions) for row in rows] == [
        ("00000.tar:a/1", b"jpeg", ("una barca",)),
        ("00000.tar:b", b"png", ("una nave",)),
    ]
    assert tally.places["an image of zero bytes"] == ["00000.tar:a/2"]
    assert tally.bad.total() == 2
    path.write_bytes(path.read_bytes()[:3000])
    rows, tally = read(web_dataset(path, **TERMS))
    assert [row.key for row in rows] == ["00000.tar:a/1"]
    assert tally.bad["the archive is damaged or ends early"] == 1


def test_halves_of_characters_are_counted_and_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"image")
    lines = [{"image_path": "a.jpg", "captions": ["un gatto \ud83d"]}, {"image_path": "a.jpg", "captions": ["un cane"]}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows, tally = read(json_lines(tmp_path / "a.jsonl", tmp_path, **TERMS))
    assert [row.captions for row in rows] == [("un cane",)]
    assert tally.places == {"a name or a caption that is not Unicode": ["a.jsonl:1"]}
    folder = tmp_path / "folder"
    folder.mkdir()
    for suffix in (b"jpg", b"txt"):
        with open(bytes(folder) + b"/caff\xe8." + suffix, "wb") as file:
            file.write(b"un caffe")
    rows, tally = read(sidecars(folder, **TERMS))
    assert rows == []
    assert tally.places == {"has a name that is not valid UTF-8. Rename it.": ["'caff\\udce8.jpg'"]}

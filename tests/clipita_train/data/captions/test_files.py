"""Captions in each publisher's format: small files written as the published ones are."""

import gzip
import json
from pathlib import Path

import pytest
from clipita_train.data.captions.files import Captioned, guess_format, locate, read_captions

MSCOCO = {
    "info": {"description": "This is stable 1.0 version of the 2014 MS COCO dataset.", "version": "1.0", "year": 2014},
    "licenses": [{"url": "http://creativecommons.org/licenses/by-nc-sa/2.0/", "id": 1, "name": "BY-NC-SA"}],
    "type": "captions",
    "images": [
        {"license": 1, "file_name": "COCO_val2014_000000000359.jpg", "id": 359, "width": 500, "height": 332},
        {"license": 1, "file_name": "COCO_val2014_000000010012.jpg", "id": 10012, "width": 427, "height": 640},
    ],
    "annotations": [
        {"image_id": "10012", "id": "663939", "caption": "una foto d'epoca di un giocatore"},
        {"image_id": 359, "id": 345, "caption": "Un gatto scontroso. "},
        {"image_id": 10012, "id": 663940, "caption": "Un giocatore di baseball"},
        {"image_id": "1", "id": "7", "caption": "Una città di notte"},
    ],
}


def written(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("compressed", [False, True])
def test_mscoco_it_whose_numbers_are_sometimes_strings(tmp_path: Path, compressed: bool) -> None:
    data = json.dumps(MSCOCO, indent="\t", ensure_ascii=False).encode()
    path = tmp_path / ("captions_ita_devset_validated.json" + ".gz" * compressed)
    path.write_bytes(gzip.compress(data) if compressed else data)
    assert read_captions(path) == [
        Captioned("COCO_val2014_000000000001.jpg", ("Una città di notte",)),  # not in "images"
        Captioned("COCO_val2014_000000000359.jpg", ("Un gatto scontroso.",)),
        Captioned("COCO_val2014_000000010012.jpg", ("una foto d'epoca di un giocatore", "Un giocatore di baseball")),
    ]


def test_xm3600_in_italian_or_another_of_its_languages(tmp_path: Path) -> None:
    lines = [
        {
            "en": {
                "caption": ["A beach"],
                "caption/tokenized": ["A beach"],
                "caption/tokenized/lowercase": ["a beach"],
            },
            "image/key": "000411001ff7dd4f",
            "image/locale": "sw",
            "it": {"caption": ["Una spiaggia", "Il mare d'inverno"], "caption/tokenized": ["Una spiaggia", "Il mare"]},
        },
        {"image/key": "00017325e1a4b2c9", "image/locale": "it", "it": {"caption": ["Un ponte"]}, "en": {"caption": []}},
    ]
    path = written(tmp_path / "captions.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    assert guess_format(path) == "xm3600"
    assert read_captions(path) == [
        Captioned("00017325e1a4b2c9.jpg", ("Un ponte",)),
        Captioned("000411001ff7dd4f.jpg", ("Una spiaggia", "Il mare d'inverno")),
    ]
    assert read_captions(path, locale="en") == [Captioned("000411001ff7dd4f.jpg", ("A beach",))]
    with pytest.raises(ValueError, match="'xx' is missing"):
        read_captions(path, locale="xx")


def test_xtd_pairs_the_lines_of_two_files(tmp_path: Path) -> None:
    names = written(
        tmp_path / "test_image_names.txt", "COCO_train2014_000000061849.jpg\nCOCO_val2014_000000000042.jpg\n"
    )
    # CR LF, and no line end after the last, as published
    path = written(tmp_path / "test_1kcaptions_it.txt", "gatto con le zampe su un mouse\r\nstormo di uccelli")
    assert read_captions(path) == [
        Captioned("COCO_train2014_000000061849.jpg", ("gatto con le zampe su un mouse",)),
        Captioned("COCO_val2014_000000000042.jpg", ("stormo di uccelli",)),
    ]
    written(names, names.read_text("utf-8").replace("\n", "\r\n"))  # as a checkout on Windows may have them
    assert read_captions(path)[1].image == "COCO_val2014_000000000042.jpg"
    written(names, "COCO_train2014_000000061849.jpg\n")
    with pytest.raises(ValueError, match=r"test_image_names.txt has 1 lines and test_1kcaptions_it.txt has 2"):
        read_captions(path)
    names.unlink()
    with pytest.raises(FileNotFoundError, match=r"test_image_names\.txt"):
        read_captions(path)


def test_the_originals_json_lines(tmp_path: Path) -> None:
    lines = [
        {"image_path": "wit/b.jpg", "captions": ["un ponte", "un fiume\u2028in piena"]},
        {"image_path": "wit/a.jpg", "captions": ["una volpe"]},
        {"image_path": "wit/b.jpg", "captions": ["acqua"]},
    ]
    path = written(tmp_path / "valid.jsonl", "\n".join(json.dumps(line, ensure_ascii=False) for line in lines))
    assert guess_format(path) == "jsonl"
    assert read_captions(path) == [
        Captioned("wit/a.jpg", ("una volpe",)),
        Captioned("wit/b.jpg", ("un ponte", "un fiume\u2028in piena", "acqua")),
    ]


def test_flickr8k_and_its_lists(tmp_path: Path) -> None:
    text = "2_b.jpg#0\tA child in a dress .\n2_b.jpg#1\tA girl\n1_a.jpg#0\tA dog\n3_c.jpg.1#0\tA man\n"
    path = written(tmp_path / "Flickr8k.token.txt", text)
    assert [item.image for item in read_captions(path)] == ["1_a.jpg", "2_b.jpg", "3_c.jpg.1"]
    (only,) = read_captions(path, only=["2_b.jpg"])
    assert only.captions == ("A child in a dress .", "A girl")
    with pytest.raises(ValueError, match=r"no captions of 2 of the wanted images: 8\.jpg, 9\.jpg"):
        read_captions(path, only=["8.jpg", "1_a.jpg", "9.jpg"])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "not in the format mscoco"),
        ("a.json", "[]", "not in the format mscoco"),
        ("a.json", '{"images": []}', "not in the format mscoco: 'annotations' is missing"),
        ("a.json", '{"annotations": []}', "has no captions"),
        ("a.json.gz", "{}", "not in the format mscoco: Not a gzipped file"),
        ("a.jsonl", '{"image_path": "a.jpg", "caption": "x"}', "not in the format jsonl: 'captions' is missing"),
        ("a.jsonl", '{"image_path": "a.jpg", "captions": [" "]}', "a caption of a.jpg is blank"),
        ("a.jsonl", "", "has no captions"),
        ("a.token.txt", "a.jpg A dog\n", "not in the format flickr8k"),
        (
            "a.csv",
            "a.jpg,A dog",
            r"the format of .*a\.csv is not known. Add it after a colon, .*a\.csv:FORMAT, as one of: mscoco,",
        ),
    ],
)
def test_files_in_no_such_format_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_captions(written(tmp_path / name, text))


def test_an_unknown_format_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'coco' is not a format of captions; expected one of: mscoco, xm3600"):
        read_captions(tmp_path / "a.json", "coco")


def test_images_are_found_as_given_by_name_or_in_cocos_folders(tmp_path: Path) -> None:
    coco = "COCO_train2014_000000061849.jpg"
    for name in ("wit/a.jpg", "b.jpg", f"train2014/{coco}"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = locate(tmp_path, ["wit/a.jpg", "/home/someone/b.jpg", coco, "c.jpg"])
    assert found == [tmp_path / "wit/a.jpg", tmp_path / "b.jpg", tmp_path / "train2014" / coco, None]
    with pytest.raises(ValueError, match=r"'x/b\.jpg' and 'y/b\.jpg' would both be the file .*/b\.jpg"):
        locate(tmp_path, ["x/b.jpg", "y/b.jpg"])

"""Readers of photographs with words of their own, each on a small folder laid out as its publisher does."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from clipita_train.data.photographs.captioned import (
    captions_table,
    markdown_images,
    name_words,
    named_files,
    plain,
    texts_beside,
    words_json,
)
from clipita_train.data.photographs.readers import CollectionItem


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def captions(items: Iterable[CollectionItem]) -> dict[str, tuple[str, ...]]:
    return {item.path.name: item.captions for item in items}


def test_a_table_with_headings(tmp_path: Path) -> None:
    touch(tmp_path / "jpg" / "one.jpg", tmp_path / "jpg" / "two.jpg", tmp_path / "jpg" / "notes.txt")
    table = 'file,first,second\none.jpg,"a dog, a cat",  <b>two</b> animals.\nmissing.jpg,x,y\nnotes.txt,x,y\n'
    (tmp_path / "captions.csv").write_text(table)
    read = captions_table("jpg/*", "captions.csv", name="file", texts=["first", "second"])
    assert captions(read(tmp_path)) == {"one.jpg": ("a dog, a cat", "two animals")}


def test_a_table_without_a_heading_has_a_caption_on_each_line(tmp_path: Path) -> None:
    touch(*(tmp_path / "images" / f"{name}.jpg" for name in ("a", "b", "c")))
    lines = ["a.jpg, một con chó, một con mèo .", "a.jpg, hai con", "a.jpg, hai con", "b.jpg,x", "no comma", "c.jpg, "]
    (tmp_path / "captions.txt").write_text("\n".join(lines), encoding="utf-8")
    read = captions_table("images/*", "captions.txt", without=["b"])
    assert captions(read(tmp_path)) == {"a.jpg": ("một con chó, một con mèo", "hai con")}
    (tmp_path / "captions.txt").write_text("a.jpg\tuno, due\n", encoding="utf-8")
    assert captions(captions_table("images/*", "captions.txt", delimiter="\t")(tmp_path)) == {"a.jpg": ("uno, due",)}


def test_lines_of_json_and_names_with_another_suffix(tmp_path: Path) -> None:
    touch(tmp_path / "data" / "x" / "7.webp")
    lines = [{"file_name": "imgs/7.png", "text": f"caption {i}"} for i in range(9)]
    (tmp_path / "metadata.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found = captions(captions_table("data/*/*", "metadata.jsonl", name="file_name", texts=["text"])(tmp_path))
    assert found == {"7.webp": tuple(f"caption {i}" for i in range(5))}


def test_lists_of_captions_and_a_table_in_another_repository(tmp_path: Path) -> None:
    touch(tmp_path / "mine" / "images" / "a.jpg", tmp_path / "mine" / "images" / "b.jpg")
    lines = [
        {"file": "images/a.tif", "captions": ["two boats .", "", "two boats ."]},
        {"file": "c.jpg", "captions": []},
    ]
    (tmp_path / "theirs.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    read = captions_table("images/*", "../theirs.jsonl", name="file", texts=["captions"])
    assert captions(read(tmp_path / "mine")) == {"a.jpg": ("two boats",)}


def test_a_list_of_json_objects(tmp_path: Path) -> None:
    touch(tmp_path / "images" / "a.jpg")
    (tmp_path / "t.json").write_text(json.dumps([{"file": "a.jpg", "caption": text} for text in ("a cup", "my cup")]))
    read = captions_table("images/*", "t.json", name="file", texts=["caption"])
    assert captions(read(tmp_path)) == {"a.jpg": ("a cup", "my cup")}


def test_as_many_photographs_as_are_asked_for(tmp_path: Path) -> None:
    touch(*(tmp_path / f"{i}.jpg" for i in range(9)))
    (tmp_path / "t.csv").write_text("".join(f"{i}.jpg,word {i}\n" for i in range(9)))
    some = captions(captions_table("*.jpg", "t.csv", take=4)(tmp_path))
    assert len(some) == 4
    assert some.items() <= captions(captions_table("*.jpg", "t.csv")(tmp_path)).items()
    assert len(list(named_files("*.jpg", take=4)(tmp_path))) == 0  # numbers are no words


def test_a_list_of_words(tmp_path: Path) -> None:
    touch(tmp_path / "files" / "1.jpg", tmp_path / "files" / "3.jpg")
    words = [
        {"image": "files/1.jpg", "word": "dog", "example": "A <i>dog</i> &amp; a cat."},
        {"image": "files/2.jpg", "word": "not there", "example": ""},
        {"image": "files/3.jpg", "word": "", "example": None},
    ]
    (tmp_path / "words.json").write_text(json.dumps(words))
    read = words_json("words.json", image="image", texts=["word", "example"])
    assert captions(read(tmp_path)) == {"1.jpg": ("dog", "A dog & a cat")}


@pytest.mark.parametrize(
    ("stem", "words"),
    [
        ("man-riding-wave", "man riding wave"),
        ("snow_storm2", "snow storm"),
        ("goldenGateBridge", "golden gate bridge"),
        ("jane-doe-unsplash-a8Xk2_pQ", "jane doe"),
        ("pexels-photo-1234567", ""),
        ("IMG_2041", ""),
        ("città-di-notte (1)", "città di notte"),
    ],
)
def test_the_words_of_a_file_name(stem: str, words: str) -> None:
    assert name_words(stem) == words


def test_named_files_with_enough_words(tmp_path: Path) -> None:
    touch(
        tmp_path / "a" / "red-car.jpg", tmp_path / "b" / "car.png", tmp_path / "b" / "DSC_1.jpg", tmp_path / "car.txt"
    )
    assert captions(named_files("a/*", "b/*")(tmp_path)) == {"red-car.jpg": ("red car",), "car.png": ("car",)}
    assert captions(named_files("*/*", least=2)(tmp_path)) == {"red-car.jpg": ("red car",)}
    assert captions(named_files("*/*", without=["red-*", "D*"])(tmp_path)) == {"car.png": ("car",)}


def test_alternative_texts_of_pages(tmp_path: Path) -> None:
    photos = tmp_path / "static" / "img"
    touch(photos / "piazza.jpg", photos / "mare.jpg", photos / "logo.svg", tmp_path.parent / "outside.jpg")
    page = tmp_path / "content" / "post" / "index.md"
    touch(page.parent / "neve.jpg", page)
    page.write_text(
        "![La piazza di notte](/img/piazza.jpg) ![Il mare al tramonto](</img/mare.jpg>) ![Molta neve qui](neve.jpg 't')"
        " ![La piazza di notte](/img/piazza.jpg) ![photo](/img/mare.jpg) ![Il nostro logo](/img/logo.svg)"
        " ![Una foto lontana](https://example.org/x.jpg) ![Fuori dalla cartella](../../../outside.jpg)",
        encoding="utf-8",
    )
    found = captions(markdown_images("content/**/*.md", roots=["static"])(tmp_path))
    assert found == {
        "piazza.jpg": ("La piazza di notte",),
        "mare.jpg": ("Il mare al tramonto",),
        "neve.jpg": ("Molta neve qui",),
    }


def test_the_first_sentence_of_a_text_beside_a_photograph(tmp_path: Path) -> None:
    touch(*(tmp_path / "images" / "sport" / f"{i}.jpg" for i in range(5)))
    texts = {
        0: "渔民在冰面上冬捕作业。我的家乡",
        1: "Two boats at 3.5 knots. More of it",
        2: "Una piazza\nDi notte",
        3: " \n",
    }
    (tmp_path / "texts").mkdir()
    for i, text in texts.items():
        (tmp_path / "texts" / f"{i}.txt").write_text(text, "utf-8")
    assert captions(texts_beside("images/*/*", texts="texts")(tmp_path)) == {
        "0.jpg": ("渔民在冰面上冬捕作业",),
        "1.jpg": ("Two boats at 3.5 knots",),
        "2.jpg": ("Una piazza",),
    }


def test_captions_are_plain_text() -> None:
    assert plain(' "<b>Un  cane</b> &amp; un gatto." ') == "Un cane & un gatto"


@pytest.mark.parametrize(
    "read",
    [
        captions_table("images/*", "t.csv"),
        named_files("images/*"),
        words_json("t.json", image="image", texts=["word"]),
        markdown_images("*.md"),
        texts_beside("images/*"),
    ],
)
def test_an_empty_clone_is_an_error(read: Callable[[Path], Iterable[CollectionItem]], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(read(tmp_path))

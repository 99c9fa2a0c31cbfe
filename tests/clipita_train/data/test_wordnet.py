"""Small files in the formats of WordNet's data.noun and the Open Multilingual Wordnet."""

from pathlib import Path

import pytest
from clipita_train.data.wordnet import Synset, read_synsets

NOUNS = """\
  1 This software and database is being provided to you, the LICENSEE, by
  14 WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved.
00001740 03 n 01 entity 0 003 ~ 00001930 n 0000 | that which is perceived
02121620 05 n 02 cat 0 true_cat 0 001 @ 02120997 n 0000 | feline mammal usually having thick soft fur; "he had a cat"
07609840 13 n 03 dessert 0 sweet 0 afters 0 001 @ 07557434 n 0000 | a dish served as the last course of a meal
02990373 06 n 01 cembalo 0 000 | a clavier | with a bar in its definition
"""
ITALIAN = """\
# MultiWordNet\tita\thttp://multiwordnet.fbk.eu/english/home.php\tCC BY 3.0
02121620-n\tita:lemma\tgatto
02121620-n\tita:lemma\tgatto_domestico
02121620-n\tita:def\tun animale
07609840-n\tita:lemma\tdessert
07609840-n\tita:lemma\tGAP!
07609840-n\tita:lemma\tdolce
02990373-n\tita:lemma\tPSEUDOGAP!
00001740-n\tita:lemma\tentità
02121620-v\tita:lemma\tcorrere
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "data.noun").write_text(NOUNS, encoding="utf-8")
    tables = {
        "ita/wn-data-ita.tab": ITALIAN,
        "iwn/wn-data-ita.tab": "# ItalWordnet\n02121620-n\tita:lemma\tmicio\n02121620-n\tita:lemma\tgatto\n",
        "wikt/wn-wikt-ita.tab": "# Wiktionary\n02990373-n\tita:lemma\tla\n",
    }
    for name, text in tables.items():
        path = tmp_path / "wns" / name
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "data.noun", tmp_path / "wns"


def test_visible_meanings_with_an_italian_word(files: tuple[Path, Path]) -> None:
    assert read_synsets(*files, without=()) == [
        Synset(
            "n02121620",
            ("gatto", "gatto domestico", "micio"),
            ("cat", "true cat"),
            "feline mammal usually having thick soft fur",
        ),
        Synset("n07609840", ("dessert", "dolce"), ("dessert", "sweet"), "a dish served as the last course of a meal"),
    ]


def test_barred_phrases_are_left_out_in_both_languages_whatever_their_article_and_case(
    files: tuple[Path, Path],
) -> None:
    cat, dessert = read_synsets(*files, without=["un Micio", "il gatto domestico", "un dessert"])
    assert cat.italian == ("gatto",)
    assert cat.english == ("cat", "true cat")
    assert dessert.italian == ("dolce",)
    assert dessert.english == ("sweet",)
    (only,) = read_synsets(*files, without=["dessert", "dolce"])
    assert only.id == "n02121620"


def test_files_that_are_missing_or_of_another_kind(files: tuple[Path, Path]) -> None:
    nouns, omw = files
    with pytest.raises(FileNotFoundError, match=r"expected the folder wns of github.com/omwn/omw-data"):
        read_synsets(nouns, omw / "ita", without=())
    nouns.write_text("  1 WordNet 3.1 Copyright 2011\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"is not the data.noun of WordNet 3.0"):
        read_synsets(nouns, omw, without=())

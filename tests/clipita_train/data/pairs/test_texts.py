import pytest
from clipita_train.data.pairs import text


def test_lengths_and_letters() -> None:
    captions = [" un gatto nero ", "È l'1", " ", "1234"]
    assert text.characters(captions) == [13, 5, 0, 4]
    assert text.words(captions) == [3, 2, 0, 0]
    assert text.letter_share(captions) == [1.0, 0.5, 0.0, 0.0]


@pytest.mark.parametrize(
    "caption", ["IMG_2041.JPG", "File:Duomo di Milano.svg", "DSC00012", "foto 3", "1920-1080", "a.png "]
)
def test_names_of_files(caption: str) -> None:
    assert text.file_name([caption]) == [True]


@pytest.mark.parametrize("caption", ["Il Duomo nel 1994", "foto di un gatto", "dsc", "una via. Jpg è il formato"])
def test_captions_are_no_names_of_files(caption: str) -> None:
    assert text.file_name([caption]) == [False]


def test_boilerplate() -> None:
    captions = [
        "Clicca per ingrandire",
        "Immagine non disponibile",
        "Cat stock photo",
        "Una foto di un cane che clicca",
    ]
    assert text.boilerplate(captions) == [True, True, True, False]


@pytest.mark.parametrize(
    ("caption", "kinds"),
    [
        ("Scrivi a mario.rossi@esempio.it", "mail"),
        ("Tel. 06 1234 5678", "phone"),
        ("chiamare +39 333 1234567, info@x.example.com", "mail,phone"),
        ("cell. 333-1234567.", "phone"),
        ("300.000.000 di euro", ""),
        ("3.331.234.567 abitanti", ""),
        ("La guerra 1915-1918, il 04.11.1918", ""),
        ("ISBN 978-88-06-12345-6", ""),
        ("@mario in gara", ""),
    ],
)
def test_personal_data(caption: str, kinds: str) -> None:
    assert text.personal_data([caption]) == [kinds]


def test_language() -> None:
    captions = [
        "Un gatto nero dorme su un divano",
        "A black cat sleeps on a sofa",
        "Eine schwarze Katze auf einem Sofa",
        "12!",
    ]
    found = text.language(captions)
    assert [code for code, _ in found] == ["it", "en", "de", ""]
    assert text.language(["CI SONO MOLTI WC SPORCHI SULLA PARETE"])[0][0] == "it"  # of MSCOCO-IT
    assert all(0.9 < probability <= 1 for _, probability in found[:3])

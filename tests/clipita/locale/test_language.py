"""The environment decides which language is spoken, and phrases and numbers are said in it."""

import gettext
import os

import pytest

from clipita.locale.language import chosen_language, phrase, speaking, speaks_italian


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "en"),
        ({"LANG": "it_IT.UTF-8"}, "it"),
        ({"LANG": "it"}, "it"),
        ({"LANG": "it-IT"}, "it"),
        ({"LANG": "it.UTF-8"}, "it"),
        ({"LANG": "iu_CA.UTF-8"}, "en"),
        ({"LANG": "item"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "it_IT.UTF-8", "LC_MESSAGES": "C"}, "en"),
        ({"LANG": "C", "LC_MESSAGES": "it_CH.UTF-8"}, "it"),
        ({"LC_MESSAGES": "it_IT", "LC_ALL": "en_GB.UTF-8"}, "en"),
        ({"LC_ALL": "it_IT.UTF-8", "LANG": "en_US.UTF-8"}, "it"),
        ({"LC_ALL": "", "LANG": "it_IT.UTF-8"}, "it"),
        ({"LC_ALL": "it_IT.UTF-8", "CLIPITA_LANG": "en"}, "en"),
        ({"LC_ALL": "C", "CLIPITA_LANG": "it"}, "it"),
        ({"CLIPITA_LANG": "IT"}, "it"),
        ({"CLIPITA_LANG": "", "LANG": "it_IT.UTF-8"}, "it"),
    ],
)
def test_the_environment_chooses(environment: dict[str, str], language: str) -> None:
    assert chosen_language(environment) == language


def test_a_language_is_spoken_until_the_end_of_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGUAGE", "de")
    assert phrase("nothing to do") == "nothing to do"
    with speaking("it"):
        assert phrase("nothing to do") == gettext.gettext("nothing to do") == "nulla da fare"
        with speaking("en"):
            assert (phrase("nothing to do"), speaks_italian()) == ("nothing to do", False)
        assert speaks_italian()
    assert (phrase("nothing to do"), os.environ["LANGUAGE"], speaks_italian()) == ("nothing to do", "de", False)


def test_english_is_spoken_in_an_italian_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "it_IT.UTF-8")
    with speaking("en"):
        assert gettext.gettext("Usage:") == "Usage:"
    with speaking("it"):
        assert gettext.gettext("Usage:") == "Uso:"


def test_numbers_have_the_marks_of_the_language() -> None:
    def said() -> list[str]:
        place = phrase("{across:.0%} from the left, {down:.0%} from the top", across=0.5, down=0.25)
        return [phrase("{count:,} photographs", count=12345), place]

    assert said() == ["12,345 photographs", "50% from the left, 25% from the top"]
    with speaking("it"):
        assert said() == ["12.345 fotografie", "al 50% da sinistra, al 25% dall'alto"]


def test_a_phrase_without_translation_stays_english() -> None:
    with speaking("it"):
        assert phrase("no such phrase, {count:,}", count=1000) == "no such phrase, 1.000"
        assert phrase("") == ""

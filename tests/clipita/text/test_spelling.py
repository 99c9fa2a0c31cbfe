"""Ways to write one and the same text: capitals, line ends, what nobody sees. The model inside reads them alike."""

import unicodedata

import numpy as np
import pytest
from support import PHOTOS

import clipita
from clipita.errors import TextError
from clipita.text.tokenizer import MAX_CHARACTERS, TokenizerConfig, normalize

PHOTO = PHOTOS / "astronauta.jpg"
SENTENCES = [
    "un gatto nero sul divano",
    "una spiaggia al tramonto",
    "la torre di Pisa",
    "perché l'acqua è così blu?",
    "una bottiglia di Coca-Cola",
]
SPELLINGS = {
    "capitals": str.upper,
    "title case": str.title,
    "a capital first": str.capitalize,
    "a line end": lambda text: text + "\n",
    "a line end of Windows": lambda text: text + "\r\n",
    "spaces around": lambda text: f"  {text}\t ",
    "spaces in the middle": lambda text: text.replace(" ", " \n  "),
    "no-break spaces": lambda text: text.replace(" ", "\u00a0"),
    "narrow no-break spaces": lambda text: text.replace(" ", "\u202f"),
    "accents apart (NFD)": lambda text: unicodedata.normalize("NFD", text),
    "spaces of no width": lambda text: "\u200b".join(text),
    "soft hyphens": lambda text: text[:4] + "\u00ad" + text[4:],
    "word joiners": lambda text: text.replace(" ", "\u2060 "),
    "a byte order mark": lambda text: "\ufeff" + text,
    "marks of direction": lambda text: f"\u202a{text}\u202c\u200e",
    "a variant selector": lambda text: text + "\ufe0f",
    "curly apostrophes": lambda text: text.replace("'", "’"),
}


@pytest.fixture(scope="module")
def model() -> clipita.Model:
    return clipita.load()


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spelling_does_not_change_an_embedding(model: clipita.Model, spelling: str) -> None:
    written = [SPELLINGS[spelling](text) for text in SENTENCES]
    np.testing.assert_allclose(model.encode_text(written), model.encode_text(SENTENCES), atol=1e-5)


@pytest.mark.parametrize("spelling", ["capitals", "title case", "a line end", "soft hyphens"])
def test_nor_an_answer(model: clipita.Model, spelling: str) -> None:
    labels = ["un astronauta", "un caffè", "un gatto", "un razzo", "un cavallo", "un albero", "un'automobile"]
    expected = model.zero_shot(PHOTO, labels)
    found = model.zero_shot(PHOTO, [SPELLINGS[spelling](label) for label in labels])
    assert [score.label for score in found] == [SPELLINGS[spelling](score.label) for score in expected]
    np.testing.assert_allclose([s.score for s in found], [s.score for s in expected], atol=1e-4)
    bare = model.zero_shot(PHOTO, ["ASTRONAUTA", "GATTO", "CAFFÈ"])  # which take their article in capitals too
    for written, small in zip(bare, model.zero_shot(PHOTO, ["astronauta", "gatto", "caffè"]), strict=True):
        assert written.label.lower() == small.label
        assert written.score == pytest.approx(small.score, abs=1e-4)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["cane", "gatto", "cane"], r"labels\[0\] and labels\[2\] are both 'cane'"),
        (["gatto", "gatto "], r"labels\[0\] 'gatto' and labels\[1\] 'gatto ' are both asked for as 'un gatto'"),
        (["caffè", unicodedata.normalize("NFD", "caffè")], "both asked for as 'un caffè'"),
        (["l'albero", "l’albero"], 'both asked for as "l\'albero"'),
        (["cane", "GATTO", "gatto"], r"labels\[1\] 'GATTO' and labels\[2\] 'gatto' are both asked for as 'un gatto'"),
        (["Il Mare", "il mare"], "both asked for as 'il mare'"),
        (["gatto", "un gatto"], r"'gatto' and labels\[1\] 'un gatto' are both asked for as 'un gatto'"),
    ],
)
def test_labels_that_are_equal_when_read_are_refused(model: clipita.Model, labels: list[str], message: str) -> None:
    with pytest.raises(TextError, match=message):
        model.zero_shot(PHOTO, labels)
    with pytest.raises(TextError, match=message):
        model.label_bank(labels)


def test_templates_tell_a_word_from_the_word_with_its_article(model: clipita.Model) -> None:
    assert len(model.zero_shot(PHOTO, ["gatto", "un gatto"], templates="{}")) == 2
    with pytest.raises(TextError, match="both asked for as 'gatto'"):
        model.zero_shot(PHOTO, ["gatto", "Gatto"], templates="{}")


def test_a_text_of_nothing_visible_is_refused(model: clipita.Model) -> None:
    for text in ("\u200b", "\ufe0f", "\u00ad\n \u2060", "\ufeff"):
        with pytest.raises(TextError, match="there is nothing to read in it"):
            model.encode_text(text)


def test_other_bundles_keep_what_their_tokenizers_do() -> None:
    config = TokenizerConfig(12)
    for text in ("UN GATTO", " un  gatto\n", "un ga\u200btto", "un gatto\ufe0f"):
        assert normalize(text, config) == text


def test_a_text_of_any_length_is_read_in_no_time(model: clipita.Model) -> None:
    long = "una spiaggia al tramonto con molti ombrelloni e il mare calmo " * 2
    endless = long * 5_000
    with pytest.warns(UserWarning, match="longer than 96 tokens and were cut"):
        np.testing.assert_allclose(model.encode_text(endless), model.encode_text(endless[:9_000]), atol=1e-5)
    for text in ("a" + "\u0301\u0323" * 50_000, "gatto " * 3_000_000, "'" * 1_000_000 + "a'"):
        assert model.encode_text(text, on_truncate="ignore").shape == (256,)
        with pytest.raises(TextError, match=f"characters, and at most {MAX_CHARACTERS:,} are read"):
            model.encode_text(text, on_truncate="raise")
    with pytest.raises(TextError, match="there is nothing to read"):
        model.encode_text(" " * 3_000_000)

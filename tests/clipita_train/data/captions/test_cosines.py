import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from clipita_train.data.captions.balance import Matcher, balanced, counts, italian_concepts
from clipita_train.data.captions.cosines import cosines
from support import PHOTOS

import clipita

CAPTIONS = {"gatto.jpg": "un gatto", "razzo.jpg": "un razzo", "caffe.jpg": "una tazza di caffè"}


@pytest.fixture(scope="module")
def model() -> clipita.Model:
    return clipita.load()


def test_a_photograph_fits_its_own_caption_best(model: clipita.Model) -> None:
    captions = list(CAPTIONS.values())
    rows = cosines(model, [PHOTOS / name for name in CAPTIONS], [captions] * len(CAPTIONS))
    assert [np.argmax(row) for row in rows] == [0, 1, 2]
    expected = model.encode_image(PHOTOS / "razzo.jpg") @ model.encode_text("un gatto")
    assert rows[1][0] == pytest.approx(expected, abs=1e-5)


def test_what_cannot_be_read_or_said_has_no_cosine(model: clipita.Model) -> None:
    good = (PHOTOS / "gatto.jpg").read_bytes()
    rows = cosines(model, [good, b"<html>", good], [["un gatto", " "], ["un gatto"], []])
    assert rows[0][0] > 0
    assert math.isnan(rows[0][1])
    assert math.isnan(rows[1][0])
    assert rows[2] == []


def test_embeddings_are_kept(model: clipita.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, captions = [PHOTOS / name for name in CAPTIONS], [[text, "un cane"] for text in CAPTIONS.values()]
    first = cosines(model, images, captions, keys=list(CAPTIONS), cache=tmp_path)
    assert np.allclose(first, cosines(model, images, captions), atol=1e-6)
    monkeypatch.setattr(model, "encode_text", None)
    monkeypatch.setattr(model, "iter_encode_image", None)
    assert cosines(model, images, captions, keys=list(CAPTIONS), cache=tmp_path) == first


def test_rows_that_do_not_fit_are_refused(model: clipita.Model, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 images, 2 rows of captions"):
        cosines(model, [b""], [[], []])
    with pytest.raises(ValueError, match="no keys"):
        cosines(model, [b""], [[]], cache=tmp_path)


def test_concepts_are_matched_by_whole_words() -> None:
    find = Matcher({"cat": ["gatto", "gatti"], "moka": ["macchina del caffè"], "coffee": ["caffè"]})
    rows = [["Un GATTO, nero.", "due gatti"], ["la macchina  del caffè!"], ["gattopardo"], []]
    assert find(rows) == [["cat"], ["coffee", "moka"], [], []]
    with pytest.raises(ValueError, match="the concept 'x' has a phrase without words: '!'"):
        Matcher({"x": ["!"]})


def test_the_ontology_is_matched_without_articles() -> None:
    find = Matcher(italian_concepts())
    assert "cat" in find([["Due gatti dormono sul divano"]])[0]


def collection() -> tuple[list[str], list[list[str]]]:
    rows = [["man"]] * 4_000 + [["bassoon"]] * 30 + [["bassoon", "man"]] * 10 + [[]] * 5
    return [f"wit:{i}" for i in range(len(rows))], rows


def test_frequent_concepts_are_capped_and_rare_ones_kept() -> None:
    ids, rows = collection()
    counted = counts(rows)
    assert counted == Counter(man=4_010, bassoon=40)
    kept = balanced(ids, rows, counted, cap=200)
    assert all(kept[4_000:4_040])
    assert not any(kept[4_040:])
    assert 150 < sum(kept[:4_000]) < 250  # 200 expected, and a standard deviation of 14
    assert all(balanced(ids, rows, counted, cap=200, keep_unmatched=True)[4_040:])
    more = balanced(ids, rows, counted, cap=400)
    assert all(now for now, before in zip(more, kept, strict=True) if before)
    assert kept != balanced(ids, rows, counted, cap=200, seed=1)


def test_shards_are_judged_alone_and_in_any_order() -> None:
    ids, rows = collection()
    counted = counts(rows[:1_000]) + counts(rows[1_000:])
    assert counted == counts(rows)
    whole = balanced(ids, rows, counted, cap=100)
    assert balanced(ids[1_000:], rows[1_000:], counted, cap=100) == whole[1_000:]
    assert balanced(ids[::-1], rows[::-1], counted, cap=100) == whole[::-1]

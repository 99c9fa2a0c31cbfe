import csv
from collections.abc import Sequence

import pytest
from clipita_train.data.captions.proper_nouns import THRESHOLD, propn_share
from support import DATA

CAPTIONS = DATA / "name_captions.tsv"


def by_capitals(captions: Sequence[str]) -> list[list[tuple[str, str]]]:
    return [[(word, "PROPN" if word.istitle() else "X") for word in caption.split()] for caption in captions]


def test_the_share_is_of_tokens_with_letters_or_digits() -> None:
    captions = ["Roberto Baggio nel 1994", "Roberto Baggio ( nel 1994 ) …", "Dora Riparia", "", " – ", "un gatto"]
    assert propn_share(captions, tagger=by_capitals) == [0.5, 0.5, 1.0, 0.0, 0.0, 0.0]
    assert propn_share([], tagger=by_capitals) == []
    assert THRESHOLD == 0.8


def test_unknown_taggers_are_named() -> None:
    with pytest.raises(LookupError, match="no tagger 'it_core_news_xs'"):
        propn_share(["x"], tagger="it_core_news_xs")


# Those that CLIP-Italian's makers name as dropped.
DROPPED = ["Dora Riparia", "Anna Maria Mozzoni", "Joey Ramone Place", "Kim Rhodes", "Ralph George Hawtrey"]


def test_the_captions_that_the_original_dropped() -> None:
    assert min(propn_share(DROPPED)) >= THRESHOLD
    assert propn_share(["Roberto Baggio nel 1994"]) == [0.5]  # 2 of 4 tokens: kept
    kept = [
        "Un gatto nero dorme sul divano",
        "Veduta del Monte Bianco da Courmayeur",
        "Il sindaco di Roma inaugura la mostra",
    ]
    assert max(propn_share(kept)) < THRESHOLD


def judged(column: str) -> tuple[float, float]:
    """Precision and recall of what is dropped, on captions labelled by hand."""
    lines = [line for line in CAPTIONS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert len(rows) == 300
    dropped = [share >= THRESHOLD for share in propn_share([row["caption"] for row in rows])]
    right = sum(drop and row[column] == "1" for drop, row in zip(dropped, rows, strict=True))
    return right / sum(dropped), right / sum(row[column] == "1" for row in rows)


@pytest.mark.parametrize(("column", "precision", "recall"), [("name", 0.89, 0.79), ("rule", 0.9, 0.9)])
def test_on_captions_labelled_by_hand(column: str, precision: float, recall: float) -> None:
    found = judged(column)
    assert found[0] >= precision
    assert found[1] >= recall

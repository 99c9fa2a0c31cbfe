from collections.abc import Sequence

import pytest

from training.data.filters import THRESHOLD, propn_share


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

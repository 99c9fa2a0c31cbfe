"""Find captions that are hardly more than a name, by CLIP-Italian's part-of-speech filter.

CLIP-Italian dropped those captions of WIT in which 80 % or more of the tokens are proper nouns, about one in ten: "Dora
Riparia", "Joey Ramone Place". No picture can teach what such a name looks like.
"""

from collections.abc import Sequence

from clipita_train.tagger.taggers import Tagger, tagger_called

THRESHOLD = 0.8
DEFAULT_TAGGER = "clipita"


def propn_share(captions: Sequence[str], *, tagger: str | Tagger = DEFAULT_TAGGER) -> list[float]:
    """Return the share of proper nouns (PROPN) among the tokens of each caption; at `THRESHOLD` or above it is dropped.

    Tokens are those of the tagger: "dell'Arno" has two, "della" one. Tokens without a letter or digit do not count, so
    "Roberto Baggio (nel 1994)" has 2 in 4, as it has without brackets. A caption without tokens that count has the
    share 0; other filters deal with those.

    Args:
        captions: Captions of any language and length; the tagger is for Italian.
        tagger: "clipita" is the tagger in this package; "stanza" and "apertium" are used if they are installed; any
            other name is a spaCy pipeline or its folder. A function may be given too, see
            `clipita_train.tagger.taggers.Tagger`.

    Raises:
        LookupError: The tagger is not installed; the message says how to get it.
    """
    tag = tagger_called(tagger) if isinstance(tagger, str) else tagger
    return [_share(tokens) for tokens in tag(captions)]


def _share(tokens: Sequence[tuple[str, str]]) -> float:
    tags = [tag for word, tag in tokens if any(map(str.isalnum, word))]
    return tags.count("PROPN") / len(tags) if tags else 0.0

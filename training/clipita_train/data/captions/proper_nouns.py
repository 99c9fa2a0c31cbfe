"""Captions that say no more than a name: the part-of-speech filter of CLIP-Italian.

Its makers dropped the captions of WIT in which 80 % or more of the tokens are proper nouns, about one in ten: "Dora
Riparia", "Joey Ramone Place". What such a name looks like can be learnt from no picture of it.
"""

from collections.abc import Sequence

from clipita_train.tagger.taggers import Tagger, tagger_called

THRESHOLD = 0.8
DEFAULT_TAGGER = "clipita"


def propn_share(captions: Sequence[str], *, tagger: str | Tagger = DEFAULT_TAGGER) -> list[float]:
    """The share of proper nouns (PROPN) among the tokens of each caption; it is dropped at `THRESHOLD` and above.

    Tokens are those of the tagger: "dell'Arno" has two, "della" one. Tokens without a letter or digit (punctuation,
    symbols) do not count, so "Roberto Baggio (nel 1994)" has 2 in 4 as it has without brackets. A caption without any
    that counts, a blank one too, has 0: other filters are for those.

    Args:
        captions: of any language and length; the tagger's language is Italian.
        tagger: "clipita" is the one in this package; "stanza" and "apertium" are used where they are installed; any
            other name is a spaCy pipeline's, or the folder of one. Or a function: see
            `clipita_train.tagger.taggers.Tagger`.

    Raises:
        LookupError: there is no such tagger; says how to get it.
    """
    tag = tagger_called(tagger) if isinstance(tagger, str) else tagger
    return [_share(tokens) for tokens in tag(captions)]


def _share(tokens: Sequence[tuple[str, str]]) -> float:
    tags = [tag for word, tag in tokens if any(map(str.isalnum, word))]
    return tags.count("PROPN") / len(tags) if tags else 0.0

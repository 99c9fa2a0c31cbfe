"""Find the people, dogs and things that the English captions of a photograph name."""

import re
from collections.abc import Sequence

AGREEING = 3  # of five captions

# English, as Flickr8k's captions are. The patterns exclude one another.
_PEOPLE = {
    "man": re.compile(r"\b(man|guy|gentleman)\b"),
    "woman": re.compile(r"\b(woman|lady)\b"),
    "boy": re.compile(r"\bboy\b"),
    "girl": re.compile(r"\bgirl\b"),
    "child": re.compile(r"\b(child|kid|toddler)\b"),
    "group_of_people": re.compile(r"\b(people|men|women|group|crowd|children|kids|boys|girls)\b"),
}
_THINGS = {
    "airplane": re.compile(r"\b(airplane|aeroplane|plane|jet)s?\b"),
    "beach": re.compile(r"\b(beach|beaches|shore|seashore|seaside)\b"),
    "bus": re.compile(r"\bbus(es)?\b"),
    "car": re.compile(r"\b(car|racecar|automobile)s?\b"),
    "cat": re.compile(r"\b(cat|kitten)s?\b"),
    "elephant": re.compile(r"\belephants?\b"),
    "flower": re.compile(r"\bflowers?\b"),
    "horse": re.compile(r"\b(horse|pony|ponies|horseback)s?\b"),
    "mountain": re.compile(r"\bmountain(s|side|sides|top|tops)?\b"),
}
_DOG = re.compile(r"\bdogs?\b")


def person_or_dog(captions: Sequence[str]) -> str | None:
    """The concept that most captions name: one kind of person, "person" where they name several, or "dog"; else None.

    A dog with its owner, and a photograph on which captions do not agree, show nothing that is sure.
    """
    lowered = [caption.lower() for caption in captions]
    named = [concept for concept, words in _PEOPLE.items() if sum(map(bool, map(words.search, lowered))) >= AGREEING]
    dogs = sum(map(bool, map(_DOG.search, lowered)))
    if named and not dogs:
        return named[0] if len(named) == 1 else "person"
    anybody = any(words.search(caption) for words in _PEOPLE.values() for caption in lowered)
    return "dog" if dogs >= AGREEING and not anybody else None


def things_named(captions: Sequence[str]) -> tuple[str, ...]:
    """The concepts, of a few that everyday questions ask for, that any of the captions names."""
    text = "\n".join(captions).lower()
    return tuple(concept for concept, words in _THINGS.items() if words.search(text))

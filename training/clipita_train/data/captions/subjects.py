"""Find the people, dogs and things that the English captions of a photograph name."""

import re
from collections.abc import Sequence

AGREEING = 3  # how many of five captions must name the same

# Flickr8k's captions are English. No word fits two of these patterns.
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
    """Return the concept that most captions name: a kind of person, "person" if they name several kinds, or "dog".

    Returns None if captions disagree, or name both a dog and a person, since the photograph then shows nothing for
    sure.
    """
    lowered = [caption.lower() for caption in captions]
    named = [concept for concept, words in _PEOPLE.items() if sum(map(bool, map(words.search, lowered))) >= AGREEING]
    dogs = sum(map(bool, map(_DOG.search, lowered)))
    if named and not dogs:
        return named[0] if len(named) == 1 else "person"
    anybody = any(words.search(caption) for words in _PEOPLE.values() for caption in lowered)
    return "dog" if dogs >= AGREEING and not anybody else None


def things_named(captions: Sequence[str]) -> tuple[str, ...]:
    """Return those concepts of `_THINGS` that any of the captions names."""
    text = "\n".join(captions).lower()
    return tuple(concept for concept, words in _THINGS.items() if words.search(text))

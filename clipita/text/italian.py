"""Italian articles: "un gatto", "uno squalo", "un'aquila", "dell'acqua", "gli alberi", "nella foto".

The article follows from gender, number and the sound that the noun begins with. The sound is read off the spelling.
Gender and number come from `italian_nouns.txt`, a list of the nouns that the rules of `gender` and `number` get wrong,
and from those rules for all others; what is a stuff ("acqua") is in there too. A noun may have words after it ("gatto
nero"), and before it one of the adjectives that stand there ("grande squalo bianco"); the gender is the noun's and the
form the first word's.

Source: Serianni, Grammatica italiana, chapters III (gender, number) and IV (articles).
"""

import functools
import re
from typing import Literal

from clipita.errors import TextError

# For averaging: `model.label_bank(labels, templates=TEMPLATES)`, of labels that have their articles. Chosen from 38 by
# `clipita-train evaluate templates` for clipita-mini; training's README has the figures.
TEMPLATES = ("{}", "un'immagine di {}")

Gender = Literal["m", "f"]
Number = Literal["s", "p"]

# What takes "lo": s and a consonant, z, x, y, gn, ps, pn and other clusters that begin no Italian syllable, and i
# before a vowel, a consonant there (lo iodio). A w (il whisky) and a j (il jazz) are not among them.
_LO = re.compile(r"(s(?![aeiouyàèéìòù])|z|x|y[aeou]|gn|p[snt]|pf|t[sz]|c[nt]|bd|mn|ft|i[aeou])")
_VOWEL = re.compile(r"h?[aeiouàèéìòùáíóúâêîôû]")  # an h is mute: l'hotel
# The sound of "sci", so "lo".
_FRENCH_CH = frozenset((
    "chablis", "chalet", "champagne", "champignon", "chansonnier", "chantilly", "chaperon", "charme", "chef",
    "chemisier", "cheviot", "chevron", "chiffon", "chignon", "choc",
))  # fmt: skip
_BEFORE = frozenset((
    "bel", "bell'", "bella", "bello", "buon", "buona", "buono", "gran", "grande", "grandi", "piccola", "piccole",
    "piccoli", "piccolo", "giovane", "giovani", "vecchia", "vecchio", "nuova", "nuovo", "antica", "antico", "ex",
    "mini", "maxi", "super", "vecchi", "vecchie", "antichi", "antiche", "nuovi", "nuove", "belle", "bei", "begli",
    "doppio", "doppia", "enorme", "mezza", "mezzo", "vera", "vero", "altra", "altro", "stessa", "stesso", "prima",
    "primo", "seconda", "secondo",
))  # fmt: skip
_OWN = re.compile(
    r"(?i)((un|uno|una|del|dello|della|dei|degli|delle|il|lo|la|i|gli|le|l|al|allo|alla|ai|agli|alle|dal|dallo|dalla|nel|"
    r"nello|nella|nei|negli|nelle|sul|sullo|sulla|di|a|da|in|con|su|per|tra|fra|e|è|c|ci|non|che|chi|come|due|tre|quattro|"
    r"cinque|sei|sette|otto|nove|dieci|molti|molte|tanti|tante|alcuni|alcune|qualche|ogni|nessun|nessuno|nessuna|più|vari|"
    r"varie|diversi|diverse|troppi|troppe|pochi|poche|tutti|tutte|questo|questa|questi|queste|quel|quello|quella|quei|"
    r"quegli|quelle|mio|mia|tuo|tua|suo|sua|nostro|nostra)\b|[undqas]\w{0,4}['’])"
)
_ARTICLES = {
    "definite": {"m": ("il", "lo", "l'"), "f": ("la", "la", "l'"), "mp": ("i", "gli", "gli"), "fp": ("le", "le", "le")},
    "indefinite": {"m": ("un", "uno", "un"), "f": ("una", "una", "un'")},
}
_LONGEST_ACRONYM = 3
_DI_PARTITIVE = re.compile(r"\b(di )(?:(?:del|dello|della|dei|degli|delle) |dell['’])")
_CONTRACTED = {"di": "de", "a": "a", "da": "da", "in": "ne", "su": "su"}


def gender(noun: str) -> Gender:
    """The gender, "m" or "f": as listed, else by the ending: -a, -zione, -tà, -trice and others are feminine.

    A noun of both genders ("artista") is masculine, which Italian uses where it is not known.

    Raises:
        TextError: a blank noun, as everywhere in this module.
    """
    head = _head(noun)
    listed = _listed()
    for form in (head, *_singulars(head)):
        if form in listed["f"] or (form in listed["plural"] and form == head):
            return "f"
        if form in listed["m"]:
            return "m"
        if form in listed["singular"]:
            return _gender_by_rule(form)
    return _gender_by_rule(head)


def number(noun: str) -> Number:
    """The number: "p" if the noun is listed as a plural or ends in -i and is not listed as a singular, else "s".

    Words in -e are plural only where the ending tells ("barche", "finestre") or they are listed ("case", "rose").
    """
    head = _head(noun)
    listed = _listed()
    if head in listed["singular"] or head in listed["f"] or head in listed["m"]:
        return "s"
    return "p" if head in listed["plural"] or _PLURAL.search(head) else "s"


def definite(noun: str) -> str:
    """The noun with its definite article: "il gatto", "lo squalo", "l'aquila", "gli alberi"."""
    return _join(_article("definite", noun), noun)


def indefinite(noun: str) -> str:
    """The noun with its indefinite article: "un gatto", "uno squalo", "un'aquila"; plurals as `partitive`."""
    return partitive(noun) if number(noun) == "p" else _join(_article("indefinite", noun), noun)


def is_mass(noun: str) -> bool:
    """Whether it is a stuff, of which one says how much and not how many: "acqua", "neve", "pane integrale".

    A noun or a phrase that is listed is, and a listed noun with other words after it. With "da" or "su" after it, it
    is a thing made of the stuff, or named after it: "ferro da stiro", "olio su tela".
    """
    head, listed = _head(noun), _listed()["mass"]
    after = noun.lower().partition(head)[2].split()
    return (head in listed and after[:1] not in (["da"], ["su"])) or "_".join(noun.lower().split()) in listed


def partitive(noun: str) -> str:
    """Some of it: "del pane", "dello zucchero", "dell'acqua", "degli spinaci"."""
    return contracted("di", noun)


def contracted(preposition: str, noun: str) -> str:
    """The noun with the definite article and "di", "a", "da", "in" or "su" before it in one word, any other in two:
    "nella foto", "sull'albero", "con il gatto"."""
    article = _article("definite", noun)
    stem = _CONTRACTED.get(preposition)
    if stem is None:
        return f"{preposition} {_join(article, noun)}"
    if article == "il":
        return _join(f"{stem}l", noun)
    if article in ("i", "gli"):
        return _join(f"{stem}{article}", noun)
    return _join(f"{stem}l{article}", noun)


def with_article(label: str) -> str:
    """Return the label as a sentence has it: `indefinite` of a noun with what follows it, `partitive` of a stuff ("del
    pane"), and all others as they are.

    A label in capitals throughout is read in small letters, "GATTO NERO" as "gatto nero", unless it has no more than
    three letters ("TV").

    Left alone are labels with an article, preposition, number or other determiner of their own ("il mare", "due gatti",
    "di notte"), names (a capital letter: "Roma"), and sentences (a mark of punctuation, or more than five words).
    """
    text = label.strip()
    if text.isupper() and len(text) > _LONGEST_ACRONYM:
        label = text = text.lower()
    words = text.split()
    if not words or not text[0].islower() or _OWN.match(text) or len(words) > 5 or re.search(r"[.!?;:,{}\d]", text):
        return label
    return partitive(text) if is_mass(text) else indefinite(text)


def in_template(template: str, label: str) -> str:
    """The template with the label where "{}" stands; "di" takes no partitive: "una foto di acqua", not "di dell'acqua".

    An article in capitals ("Della Robbia") is a name's and stays.

    Source: Serianni, chapter IV, on the partitive article.
    """
    return _DI_PARTITIVE.sub(r"\1", template.replace("{}", label))


# Endings of plurals: -i, but for words of one syllable (sci), and of the feminines in -e those that few singulars have.
_PLURAL = re.compile(
    r"(..i|nze|.ure|zze|che|ghe|ie|[ei]tte|lle|uole|[acgit]ole|[^gd]ine|..ane|ade|ote|rme|ate|ute|ose|ive|esse|mme|ppe|tte|cce|gge|rre|"
    r"onne|iste|este|rte|lte|agne|gogne|tre|dre|mpe|mbe|rpe)$"
)
# Endings of feminine nouns, and of masculine ones that look like them.
_FEMININE = re.compile(
    r"(a|tà|tù|[zsgnx]ione|[zsgnx]ioni|stione|stioni|ie|trice|trici|udine|udini|[aiu]ggine|[aiu]ggini|[aiu]gine|[aiu]gini|ite|"
    r"ice|tion|ship|ness|ity)$"
)
_MASCULINE = re.compile(
    r"(ramma|[^r]ema|oma|asma|isma|emma|igma|ista|iatra|cida|arca|nauta|crata|[a-z]ness(?<!business))$"
)


def _gender_by_rule(head: str) -> Gender:
    feminine = _FEMININE.search(head) or (head.endswith("e") and _PLURAL.search(head))
    return "f" if feminine and not _MASCULINE.search(head) else "m"


def _article(kind: str, noun: str) -> str:
    forms = _ARTICLES[kind][gender(noun) + ("p" if kind == "definite" and number(noun) == "p" else "")]
    first = _first_word(noun)
    if first in _FRENCH_CH or _LO.match(first) or noun.strip().lower() in ("dei", "dèi"):
        return forms[1]
    return forms[2] if _VOWEL.match(first) else forms[0]


def _join(article: str, noun: str) -> str:
    return f"{article}{noun.strip()}" if article.endswith("'") else f"{article} {noun.strip()}"


def _first_word(noun: str) -> str:
    words = noun.lower().replace("’", "'").split()
    if not words:
        raise TextError(f"a noun is expected, such as 'gatto', not {noun!r}.")
    return words[0].lstrip("'\"«“(")  # la 'ndrangheta


def _head(noun: str) -> str:
    """The noun that a phrase is about: its first word, but for adjectives before it."""
    first = _first_word(noun)
    words = [first, *noun.lower().split()[1:]]
    while len(words) > 1 and words[0] in _BEFORE:
        words.pop(0)
    return words[0].rstrip('.,;:!?")»”')


def _singulars(word: str) -> tuple[str, ...]:
    """What a plural in -i may be the plural of: gatti, notti, problemi."""
    return (f"{word[:-1]}e", f"{word[:-1]}a", f"{word[:-1]}o") if word.endswith("i") and len(word) > 3 else ()


@functools.cache
def _listed() -> dict[str, frozenset[str]]:
    """The sections of `italian_nouns.txt`."""
    from importlib import resources  # 2 ms, which an import of clipita need not wait for

    sections: dict[str, set[str]] = {}
    name = ""
    for line in (resources.files("clipita.text") / "italian_nouns.txt").read_text("utf-8").splitlines():
        if line.startswith("["):
            name = line.strip("[]")
        elif not line.startswith("#"):
            sections.setdefault(name, set()).update(line.split())
    return {name: frozenset(words) for name, words in sections.items()}

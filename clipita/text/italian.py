"""Choose Italian articles: "un gatto", "uno squalo", "un'aquila", "dell'acqua", "gli alberi", "nella foto".

The article depends on gender, number and the first sound of the noun. The spelling tells the sound. Gender and number
come from the rules of `gender` and `number`, and for nouns on which the rules are wrong from the list in
`italian_nouns.txt`. The list also has the mass nouns ("acqua"). A noun may have words after it ("gatto nero"), and
before it one of the adjectives that can stand there ("grande squalo bianco"); the gender is then that of the noun, and
the form follows the first word.

Source: Serianni, Grammatica italiana, chapters III (gender, number) and IV (articles).
"""

import functools
import re
from typing import Literal

from clipita.errors import TextError

# Templates to average over: `model.label_bank(labels, templates=TEMPLATES)`, for labels with articles. They were chosen
# from 38 by `clipita-train evaluate templates` for clipita-mini; docs/en/training/evaluate.md has the figures.
TEMPLATES = ("{}", "un'immagine di {}")

Gender = Literal["m", "f"]
Number = Literal["s", "p"]

# The beginnings of words that take "lo": s and a consonant, z, x, y, gn, ps, pn and other clusters that begin no
# Italian syllable, and i before a vowel, where it is a consonant (lo iodio). Words with w (il whisky) and j (il jazz)
# do not.
_LO = re.compile(r"(s(?![aeiouyàèéìòù])|z|x|y[aeou]|gn|p[snt]|pf|t[sz]|c[nt]|bd|mn|ft|i[aeou])")
_VOWEL = re.compile(r"h?[aeiouàèéìòùáíóúâêîôû]")  # an h is silent: l'hotel
# French words whose ch sounds like "sci", so that they take "lo".
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
    """Return the gender of a noun, "m" or "f", by the list or else by its ending: -a, -zione, -tà, -trice are feminine.

    A noun of both genders ("artista") is masculine, as Italian uses it when the gender is not known.

    Raises:
        TextError: The noun is blank; so does every function of this module.
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
    """Return the number of a noun, "s" or "p".

    A noun is plural if it is listed as a plural, or if it ends in -i and is not listed as a singular. Words in -e are
    plural only if the ending tells ("barche", "finestre") or they are listed ("case", "rose").
    """
    head = _head(noun)
    listed = _listed()
    if head in listed["singular"] or head in listed["f"] or head in listed["m"]:
        return "s"
    return "p" if head in listed["plural"] or _PLURAL.search(head) else "s"


def definite(noun: str) -> str:
    """Return a noun with its definite article: "il gatto", "lo squalo", "l'aquila", "gli alberi"."""
    return _join(_article("definite", noun), noun)


def indefinite(noun: str) -> str:
    """Return a noun with its indefinite article: "un gatto", "uno squalo", "un'aquila"; plurals as `partitive`."""
    return partitive(noun) if number(noun) == "p" else _join(_article("indefinite", noun), noun)


def is_mass(noun: str) -> bool:
    """Tell whether a noun is a mass noun, which is measured and not counted: "acqua", "neve", "pane integrale".

    Listed nouns and phrases are, also with other words after them. With "da" or "su" after it, a listed noun is a thing
    that is made of the material, or named after it: "ferro da stiro", "olio su tela".
    """
    head, listed = _head(noun), _listed()["mass"]
    after = noun.lower().partition(head)[2].split()
    return (head in listed and after[:1] not in (["da"], ["su"])) or "_".join(noun.lower().split()) in listed


def partitive(noun: str) -> str:
    """Return a noun with its partitive article: "del pane", "dello zucchero", "dell'acqua", "degli spinaci"."""
    return contracted("di", noun)


def contracted(preposition: str, noun: str) -> str:
    """Return a noun with a preposition and the definite article: "nella foto", "sull'albero", "con il gatto".

    "di", "a", "da", "in" and "su" make one word with the article; others stay separate.
    """
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
    """Return a label with the article that it has in a sentence: "un gatto nero", and for a mass noun "del pane".

    Some labels stay as they are: those with an article, preposition, number or other determiner of their own ("il
    mare", "due gatti", "di notte"), names (a capital letter: "Roma"), and sentences (a punctuation mark, or more than
    five words). A label all in capitals is first written in small letters, "GATTO NERO" as "gatto nero", unless it has
    at most three letters ("TV").
    """
    text = label.strip()
    if text.isupper() and len(text) > _LONGEST_ACRONYM:
        label = text = text.lower()
    words = text.split()
    if not words or not text[0].islower() or _OWN.match(text) or len(words) > 5 or re.search(r"[.!?;:,{}\d]", text):
        return label
    return partitive(text) if is_mass(text) else indefinite(text)


def in_template(template: str, label: str) -> str:
    """Put a label into a template in place of "{}", and drop its partitive article after "di".

    "una foto di {}" and "dell'acqua" make "una foto di acqua". An article with a capital ("Della Robbia") belongs to a
    name and stays.

    Source: Serianni, chapter IV, on the partitive article.
    """
    return _DI_PARTITIVE.sub(r"\1", template.replace("{}", label))


# Endings of plurals: -i, except in words of one syllable (sci), and those endings of feminines in -e that few singulars
# have.
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
    """Return the main noun of a phrase: its first word that is not one of the adjectives that may stand before it."""
    first = _first_word(noun)
    words = [first, *noun.lower().split()[1:]]
    while len(words) > 1 and words[0] in _BEFORE:
        words.pop(0)
    return words[0].rstrip('.,;:!?")»”')


def _singulars(word: str) -> tuple[str, ...]:
    """Return the possible singulars of a plural in -i, such as gatti, notti, problemi."""
    return (f"{word[:-1]}e", f"{word[:-1]}a", f"{word[:-1]}o") if word.endswith("i") and len(word) > 3 else ()


@functools.cache
def _listed() -> dict[str, frozenset[str]]:
    """Read the sections of `italian_nouns.txt`."""
    from importlib import resources  # 2 ms, which an import of clipita need not wait for

    sections: dict[str, set[str]] = {}
    name = ""
    for line in (resources.files("clipita.text") / "italian_nouns.txt").read_text("utf-8").splitlines():
        if line.startswith("["):
            name = line.strip("[]")
        elif not line.startswith("#"):
            sections.setdefault(name, set()).update(line.split())
    return {name: frozenset(words) for name, words in sections.items()}

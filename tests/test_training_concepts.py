"""The shipped Italian tables, and what they let training see."""

import re
from collections import Counter

import numpy as np
import pytest

from training.data import concepts
from training.data.concepts import (
    Concept,
    Ontology,
    class_concepts,
    load_ontology,
    phrasings,
    read_table,
    training_texts,
    with_definite_article,
    without_article,
)

ONTOLOGY = load_ontology()
PHRASES = [(c.id, phrase) for c in ONTOLOGY.concepts for phrase in (c.label, *c.synonyms)]

# Before these sounds Italian says uno, dello, degli, lo, gli: s and a consonant, z, gn, ps, x, y, i and a vowel.
_UNO = re.compile(r"s[bcdfghklmnpqrtvwxz]|z|gn|ps|pn|x|y|j|i[aeou]", re.IGNORECASE)
_VOWEL = re.compile(r"[aeiouàèéìòùh]", re.IGNORECASE)
_ARTICLE = re.compile(r"(un'|dell'|l'|(?:un|uno|una|del|dello|della|dei|degli|delle|il|lo|la|i|gli|le) )(.+)")
# Foreign sounds: /dʒ/ in jeans, /ʃ/ in chef, an h that is heard; /w/ in uistitì; pt is as ps.
_FOREIGN = {
    "un jacamar",
    "uno uistitì",
    "uno pterois",
    "un jet passeggeri",
    "dei jeans",
    "un joystick",
    "uno champignon",
    "un jackfruit",
    "uno chalet",
    "una hall",
    "uno chef",
}
# Phrases that name no single thing, and names.
_WITHOUT_ARTICLE = re.compile(
    r"qualcosa |qualcuno\b|due |genitori e figli$|(frutta|verdura) fresca$|all'aperto$|pomodoro e mozzarella$|[A-Z]\w+$"
)


def article_fits(phrase: str) -> bool:
    match = _ARTICLE.fullmatch(phrase)
    if match is None:
        return False
    article, word = match[1].strip(), match[2]
    if _UNO.match(word):
        return article in {"uno", "dello", "degli", "lo", "gli", "una", "della", "delle", "la", "le"}
    if _VOWEL.match(word):
        return article in {"un", "un'", "dell'", "degli", "delle", "l'", "gli", "le"}
    return article in {"un", "una", "del", "della", "dei", "delle", "il", "la", "i", "le"}


def test_every_phrase_has_the_article_that_its_first_sound_asks_for() -> None:
    wrong = {p for _, p in PHRASES if not article_fits(p) and not _WITHOUT_ARTICLE.match(p)}
    assert wrong == _FOREIGN


@pytest.mark.parametrize(
    "phrase", ["un gnomo", "uno cane", "una ape", "un'sedia", "del zucchero", "dei spinaci", "lo pane"]
)
def test_the_article_checker_sees_mistakes(phrase: str) -> None:
    assert not article_fits(phrase)


def test_labels_are_unique_and_no_concept_repeats_itself() -> None:
    assert [label for label, n in Counter(c.label for c in ONTOLOGY.concepts).items() if n > 1] == []
    assert [c.id for c in ONTOLOGY.concepts if len({c.label, *c.synonyms}) <= len(c.synonyms)] == []
    assert all(c.label == c.label.strip() and c.plural == c.plural.strip() for c in ONTOLOGY.concepts)


def test_the_thousand_classes_are_there_in_the_classifiers_order() -> None:
    classes = [row[0] for row in read_table("imagenet.tsv", 5)]
    assert len(classes) == 1000
    assert classes == sorted(classes)


@pytest.mark.parametrize(
    ("dataset", "count"), [("caltech101", 100), ("grocery", 81), ("grocery_coarse", 43), ("clothing", 10)]
)
def test_the_classes_of_a_data_set_are_concepts(dataset: str, count: int) -> None:
    table = class_concepts(dataset)
    assert len(table) == count
    assert set(table.values()) <= set(ONTOLOGY.index)


def test_every_row_of_the_classes_is_a_concept_and_stands_once() -> None:
    rows = list(read_table("classes.tsv", 3))
    assert [row for row in rows if row[2] not in ONTOLOGY.index] == []
    assert [key for key, n in Counter((row[0], row[1]) for row in rows).items() if n > 1] == []


def test_an_unknown_data_set_and_a_short_row_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"no class of the data set 'imaginary'"):
        class_concepts("imaginary")
    with pytest.raises(ValueError, match=r"classes.tsv, line \d+: expected 4 columns, got 3"):
        list(read_table("classes.tsv", 4))


def test_ancestors_are_all_broader_kinds_and_the_concept_itself() -> None:
    def broader(concept: str) -> set[str]:
        return {ONTOLOGY.concepts[k].id for k in np.flatnonzero(ONTOLOGY.ancestors[ONTOLOGY.index[concept]])}

    labrador = "n02099712"
    assert {labrador, "retriever", "dog", "pet", "mammal", "animal"} <= broader(labrador)
    assert not {"cat", "feline", "bird", "vehicle"} & broader(labrador)
    assert broader("animal") == {"animal"}
    assert "dog" not in broader("canine")
    squared = ONTOLOGY.ancestors.astype(np.float32) @ ONTOLOGY.ancestors.astype(np.float32)
    assert ((squared > 0) == ONTOLOGY.ancestors).all()  # closed
    assert not (ONTOLOGY.ancestors & ONTOLOGY.ancestors.T & ~np.eye(len(ONTOLOGY), dtype=bool)).any()  # no circles


def test_an_ontology_names_what_is_wrong_with_it() -> None:
    def concept(name: str, *parents: str) -> Concept:
        return Concept(name, f"un {name}", "", (), parents, ())

    with pytest.raises(ValueError, match=r"must be unique, these are not: cane$"):
        Ontology([concept("cane"), concept("gatto"), concept("cane")])
    with pytest.raises(ValueError, match=r"without a row of their own: animale$"):
        Ontology([concept("cane", "animale")])


def test_the_hold_out_is_a_fixed_share_and_leaves_every_concept_a_phrase() -> None:
    held_out = {c.id: c.held_out for c in ONTOLOGY.concepts if c.held_out}
    synonyms = sum(len(c.synonyms) for c in ONTOLOGY.concepts)
    assert 0.1 < sum(map(len, held_out.values())) / synonyms < 0.2
    assert all(c.phrases for c in ONTOLOGY.concepts)
    assert all(set(c.held_out) <= {c.label, *c.synonyms} for c in ONTOLOGY.concepts)
    # By hash, so that it is the same on every machine and whatever else is in the tables.
    assert held_out["dog"] == ("il migliore amico dell'uomo",)
    load_ontology.cache_clear()
    assert {c.id: c.held_out for c in load_ontology().concepts if c.held_out} == held_out


def test_labels_are_held_out_only_of_broader_kinds() -> None:
    broader = {parent for c in ONTOLOGY.concepts for parent in c.parents}
    labels = [c.id for c in ONTOLOGY.concepts if c.label in c.held_out]
    assert labels
    assert set(labels) <= broader


def test_no_held_out_phrase_is_in_a_training_text_of_any_concept() -> None:
    trained: dict[str, set[str]] = {}
    for concept in ONTOLOGY.concepts:
        for text in training_texts(concept):
            words = text.lower()
            for prefix in ("una foto di ", "un'immagine di ", "foto di "):
                words = words.removeprefix(prefix)
            trained.setdefault(without_article(words), set()).add(concept.id)
    forms = [
        (c.id, form, trained[without_article(form.lower())])
        for c in ONTOLOGY.concepts
        for phrase in c.held_out
        for form in phrasings(phrase)[:3]
        if without_article(form.lower()) in trained
    ]
    assert forms == []


def test_a_phrase_that_another_concept_learns_is_not_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {
        "everyday.tsv": [
            ["sheep", "una pecora", "pecore", "un agnello; un ovino", ""],
            ["lamb", "un agnello", "agnelli", "un agnellino", "sheep"],
            ["cherry", "una ciliegia", "ciliegie", "delle ciliegie", ""],
            ["scooter", "un motorino", "motorini", "una Vespa; uno scooter", ""],
            ["wasp", "una vespa", "vespe", "", ""],
        ]
    }
    held = {"un agnello", "un ovino", "delle ciliegie", "una Vespa", "uno scooter"}
    monkeypatch.setattr(concepts, "read_table", lambda table, _: iter(rows.get(table, [])))
    monkeypatch.setattr(concepts, "_percentile", lambda phrase: 0 if phrase in held else 99)
    load_ontology.cache_clear()
    try:
        held_out = {c.id: c.held_out for c in load_ontology().concepts}
    finally:
        load_ontology.cache_clear()
    assert held_out == {"sheep": ("un ovino",), "lamb": (), "cherry": (), "scooter": ("uno scooter",), "wasp": ()}


@pytest.mark.parametrize(
    ("phrase", "bare", "definite"),
    [
        ("un gatto", "gatto", "il gatto"),
        ("un amo", "amo", "l'amo"),
        ("un uomo anziano", "uomo anziano", "l'uomo anziano"),
        ("uno zaino", "zaino", "lo zaino"),
        ("una casa", "casa", "la casa"),
        ("un'isola", "isola", "l'isola"),
        ("del pane", "pane", "il pane"),
        ("dello yogurt", "yogurt", "lo yogurt"),
        ("della pasta", "pasta", "la pasta"),
        ("dell'insalata", "insalata", "l'insalata"),
        ("dei biscotti", "biscotti", "i biscotti"),
        ("degli spinaci", "spinaci", "gli spinaci"),
        ("delle scarpe", "scarpe", "le scarpe"),
        ("il muso di un puma", "muso di un puma", "il muso di un puma"),
        ("qualcuno che corre", "qualcuno che corre", "qualcuno che corre"),
        ("unicorno", "unicorno", "unicorno"),  # begins like an article
    ],
)
def test_articles(phrase: str, bare: str, definite: str) -> None:
    assert without_article(phrase) == bare
    assert with_definite_article(phrase) == definite
    assert phrasings(phrase)[:3] == (phrase, bare, definite)


def test_training_texts_of_a_concept() -> None:
    concept = Concept("cat", "un gatto", "gatti", ("un micio", "un felino domestico"), (), ("un micio",))
    texts = training_texts(concept)
    assert texts[0] == "un gatto"
    assert {"gatti", "una foto di gatti", "il felino domestico", "un'immagine di un gatto", "foto di gatto"} <= {*texts}
    assert not any("micio" in text for text in texts)
    assert len(texts) == len({*texts})
    hidden = Concept("cat", "un gatto", "gatti", ("un micio",), (), ("un gatto",))
    assert not any("gatt" in text for text in training_texts(hidden))

"""The shipped Italian tables, and what they let training see."""

import re
from collections import Counter

import numpy as np
import pytest
from clipita_train.data import concepts
from clipita_train.data.concepts import (
    CONTEXTS_EACH,
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
# First words with foreign sounds: /dʒ/ in jeans, /ʃ/ in chef, an h that is heard; /w/ in uistitì; pt is as ps, ts as z.
_FOREIGN = {
    *("jacamar", "jack", "jackfruit", "jaguar", "japanese", "jeans", "jet", "jiaozi", "jigsaw", "jogger", "joshua"),
    *("joypad", "joystick", "jumbo", "junco", "junk", "chalet", "champignon", "chef", "hall", "home"),
    *("pterois", "tsang", "uistiti", "uistitì"),
}
# Phrases that name no single thing, and names.
_WITHOUT_ARTICLE = re.compile(
    r"qualcosa |qualcuno\b|due |genitori e figli$|(frutta|verdura) fresca$|all'aperto$|pomodoro e mozzarella$|[A-Z]\w+$"
    r"|Garfield|Santa Claus"
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
    assert {p for p in wrong if without_article(p).lower().split()[0] not in _FOREIGN} == set()


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
        return Concept(name, f"un {name}", "", (), parents)

    with pytest.raises(ValueError, match=r"must be unique, these are not: cane$"):
        Ontology([concept("cane"), concept("gatto"), concept("cane")])
    with pytest.raises(ValueError, match=r"have no row of their own: animale$"):
        Ontology([concept("cane", "animale")])


def test_the_hold_out_is_a_fixed_share_of_the_synonyms_and_of_no_label() -> None:
    held_out = {c.id: c.held_out for c in ONTOLOGY.concepts if c.held_out}
    synonyms = sum(len(c.synonyms) for c in ONTOLOGY.concepts)
    assert 0.1 < sum(map(len, held_out.values())) / synonyms < 0.2
    assert all(set(c.held_out) <= set(c.synonyms) - {c.label} for c in ONTOLOGY.concepts)
    broader = {parent for c in ONTOLOGY.concepts for parent in c.parents}
    assert len(broader & held_out.keys()) > 50
    # By hash, so that it is the same on every machine and whatever else is in the tables.
    assert "il migliore amico dell'uomo" in held_out["dog"]
    load_ontology.cache_clear()
    assert {c.id: c.held_out for c in load_ontology().concepts if c.held_out} == held_out


@pytest.mark.slow
def test_no_held_out_phrase_is_in_a_training_text_of_any_concept_not_even_as_a_part() -> None:
    trained = {" ".join(re.findall(r"\w+", text.lower())) for c in ONTOLOGY.concepts for text in training_texts(c)}
    everything = " | ".join(sorted(trained))
    bare = {" ".join(re.findall(r"\w+", without_article(p).lower())) for c in ONTOLOGY.concepts for p in c.held_out}
    assert len(bare) > 1500
    assert {phrase for phrase in bare if f" {phrase} " in everything} == set()


def test_a_phrase_that_stands_elsewhere_in_the_tables_is_not_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {
        "everyday.tsv": [
            ["sheep", "una pecora", "pecore", "un agnello; un ovino; una lanuta", ""],
            ["lamb", "un agnello", "agnelli", "un agnellino", "sheep"],
            ["cherry", "una ciliegia", "ciliegie", "delle ciliegie", ""],
            ["scooter", "un motorino", "motorini", "una Vespa; uno scooter", ""],
            ["wasp", "una vespa", "vespe", "", ""],
        ],
        "descriptions.tsv": [["lamb", "un piccolo di una lanuta"]],
    }
    held = {"un agnello", "un ovino", "una lanuta", "delle ciliegie", "una Vespa", "uno scooter"}
    monkeypatch.setattr(concepts, "read_table", lambda table, _: iter(rows.get(table, [])))
    monkeypatch.setattr(concepts, "_percentile", lambda phrase: 0 if phrase in held else 99)
    load_ontology.cache_clear()
    try:
        held_out = {c.id: c.held_out for c in load_ontology().concepts}
    finally:
        load_ontology.cache_clear()
    assert held_out == {"sheep": ("un ovino",), "lamb": (), "cherry": (), "scooter": ("uno scooter",), "wasp": ()}


def test_a_description_of_what_no_table_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"descriptions.tsv": [["unicorn", "un cavallo con un corno"]]}
    monkeypatch.setattr(concepts, "read_table", lambda table, _: iter(rows.get(table, [])))
    load_ontology.cache_clear()
    try:
        with pytest.raises(ValueError, match=r"describes what no table has: unicorn$"):
            load_ontology()
    finally:
        load_ontology.cache_clear()


@pytest.mark.parametrize(
    ("phrase", "bare", "definite"),
    [
        ("un gatto", "gatto", "il gatto"),
        ("un amo", "amo", "l'amo"),
        ("un hotel", "hotel", "l'hotel"),
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
    synonyms = ("un micio", "un felino domestico")
    concept = Concept("cat", "un gatto", "gatti", synonyms, (), ("un animale che fa le fusa",), ("un micio",))
    texts = training_texts(concept)
    assert texts[0] == "un gatto"
    assert {"gatti", "una foto di gatti", "il felino domestico", "un'immagine di un gatto", "foto di gatto"} <= {*texts}
    assert {"un animale che fa le fusa", "una foto di un animale che fa le fusa"} <= {*texts}
    assert sum("un gatto" in text and text not in phrasings("un gatto")[:6] for text in texts) == CONTEXTS_EACH
    assert not any("micio" in text for text in texts)
    assert len(texts) == len({*texts})

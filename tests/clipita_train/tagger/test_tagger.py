import gzip
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import spacy
from click.testing import CliRunner
from clipita_train.tagger import lexicon, student, taggers, teacher, tower
from clipita_train.tagger.recipe import main as recipe
from clipita_train.tagger.recipe import read_treebank
from clipita_train.tagger.student import Lexicon
from clipita_train.tagger.taggers import of_apertium, of_stanza, tagger_called
from clipita_train.tagger.teacher import Teacher
from clipita_train.tagger.texts import read_texts
from clipita_train.tagger.treebank import TAGS, Sentence, read_conllu, read_tagged, score
from clipita_train.towers.pretrained import e5_small

pytestmark = pytest.mark.slow

CONLLU = """\
# text = Guardala nella Val d'Aosta.
1-2\tGuardala\t_\t_\t_\t_\t_\t_\t_\t_
1\tGuarda\tguardare\tVERB\tV\t_\t0\troot\t_\t_
2\tla\tlo\tPRON\tPC\t_\t1\tobj\t_\t_
3-4\tnella\t_\t_\t_\t_\t_\t_\t_\t_
3\tin\tin\tADP\tE\t_\t5\tcase\t_\t_
4\tla\til\tDET\tRD\t_\t5\tdet\t_\t_
5\tVal\tVal\tPROPN\tSP\t_\t1\tobl\t_\t_
6\td'\tdi\tADP\tE\t_\t7\tcase\t_\tSpaceAfter=No
6.1\tvalle\tvalle\tNOUN\tS\t_\t_\t_\t_\t_
7\tAosta\tAosta\tPROPN\tSP\t_\t5\tnmod\t_\tSpaceAfter=No
8\t.\t.\tPUNCT\tFS\t_\t1\tpunct\t_\t_

# text = Sì
1\tSì\tsì\tINTJ\tI\t_\t0\troot\t_\t_
"""


def test_treebanks_are_read_by_surface_tokens(tmp_path: Path) -> None:
    (tmp_path / "a.conllu").write_text(CONLLU, encoding="utf-8")
    first, second = read_conllu(tmp_path / "a.conllu")
    assert first.words == ("Guardala", "nella", "Val", "d'", "Aosta", ".")
    assert first.tags == ("VERB", "ADP", "PROPN", "ADP", "PROPN", "PUNCT")
    assert first.spaces == (True, True, True, False, False, True)
    assert second == Sentence(("Sì",), (True,), ("INTJ",))


@pytest.mark.parametrize(
    ("line", "message"),
    [("1\tSì", ":15: expected 10 columns"), ("1\tSì\tsì\tINT" + "\t_" * 6, ":15: expected one of .*'INT'")],
)
def test_broken_treebanks_are_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "a.conllu").write_text(CONLLU.rsplit("\n", 2)[0] + f"\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_conllu(tmp_path / "a.conllu")


def test_scores() -> None:
    sentence = Sentence(("a", "b", "c", "d"), (True,) * 4, ("PROPN", "PROPN", "NOUN", "VERB"))
    found = score(lambda _: [["PROPN", "NOUN", "PROPN", "VERB"]], [sentence])
    assert (found.tokens, found.accuracy, found.precision, found.recall) == (4, 0.5, 0.5, 0.5)
    assert str(found) == "UPOS 50.00%, PROPN F1 50.00% (P 50.00%, R 50.00%) on 4 tokens"


def a_toy_language() -> tuple[list[Sentence], Lexicon]:
    """A language with three tags, told apart by endings, or by nothing but the lexicon."""
    rng = np.random.default_rng(0)
    kinds = {"NOUN": "gatt{}o", "VERB": "dorm{}ere", "PROPN": "Nom{}i"}
    sentences = []
    for _ in range(60):
        tags = [list(kinds)[i] for i in rng.integers(0, 3, 6)]
        words = [kinds[tag].format(rng.integers(1_000)) for tag in tags]
        sentences.append(Sentence((*words, "due", "tre"), (True,) * 8, (*tags, "NUM", "ADV")))
    return sentences, Lexicon(("due", "tre"), np.array([[64, -64], [-64, 64]], np.int8))


def test_a_tagger_learns_and_is_the_same_after_saving(tmp_path: Path) -> None:
    sentences, words = a_toy_language()
    targets = [np.eye(len(TAGS), dtype=np.float32)[[TAGS.index(tag) for tag in s.tags]] for s in sentences]
    nlp = student.train(sentences[:50], targets[:50], words, epochs=12, quiet=True)
    assert score(lambda some: student.tags(nlp, some), sentences[50:]).accuracy > 0.95
    names = [sum(tags.count("PROPN") for tags in student.tags(nlp, sentences))]
    for by in (-100, 200, -100):
        student.lean(nlp, "PROPN", by)
        names.append(sum(tags.count("PROPN") for tags in student.tags(nlp, sentences)))
    assert names == [names[0], 0, 8 * len(sentences), names[0]]
    student.save(nlp, tmp_path / "a.npz")
    again = student.load(tmp_path / "a.npz")
    assert student.tags(again, sentences) == student.tags(nlp, sentences)
    with np.load(tmp_path / "a.npz") as stored:
        np.savez(tmp_path / "b.npz", **{name: stored[name] for name in stored.files[:-1]})
    with pytest.raises(ValueError, match=r"b.npz does not hold weights of this tagger"):
        student.load(tmp_path / "b.npz")


def test_variations_keep_tokens_and_targets_together() -> None:
    sentence = Sentence(
        ("Il", "Monte", "Bianco", "d'", "inverno"), (True,) * 5, ("DET", "PROPN", "PROPN", "ADP", "NOUN")
    )
    target = np.arange(5, dtype=np.float32)[:, None]
    chance, seen = random.Random(0), set[tuple[str, ...]]()
    for _ in range(500):
        varied, rows = student.vary(sentence, target, chance)
        start = int(rows[0, 0])
        assert list(rows[:, 0]) == list(range(start, start + len(varied.words)))
        assert varied.tags == sentence.tags[start : start + len(rows)]
        assert [word.lower() for word in varied.words] == [word.lower() for word in sentence.words[start:][: len(rows)]]
        seen.add(varied.words)
    assert {("Monte", "Bianco"), sentence.words, tuple(map(str.upper, sentence.words))} <= seen


def test_any_spacy_pipeline_by_its_folder(tmp_path: Path) -> None:
    nlp = spacy.blank("it")
    nlp.add_pipe("tagger").add_label("x")  # pyright: ignore
    rules = nlp.add_pipe("attribute_ruler")
    nlp.initialize()
    rules.add([[{"IS_TITLE": True}]], {"POS": "PROPN"})  # pyright: ignore
    nlp.to_disk(tmp_path / "tags")
    assert tagger_called(str(tmp_path / "tags"))(["dell’Arno  a\nRoma", " "]) == [
        [("dell'", ""), ("Arno", "PROPN"), ("a", ""), ("Roma", "PROPN")],
        [],
    ]
    spacy.blank("it").to_disk(tmp_path / "empty")
    with pytest.raises(LookupError, match="tags nothing: it has no parts"):
        tagger_called(str(tmp_path / "empty"))


def test_taggers_that_are_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(LookupError, match=r"no tagger 'it_core_news_xs'.*spacy download it_core_news_sm"):
        tagger_called("it_core_news_xs")
    monkeypatch.setattr(taggers, "APERTIUM", tmp_path)
    with pytest.raises(LookupError, match="apt-get install apertium-srd-ita"):
        taggers.tagger_called.__wrapped__("apertium")
    monkeypatch.setitem(__import__("sys").modules, "stanza", None)
    with pytest.raises(LookupError, match="pip install stanza"):
        taggers.tagger_called.__wrapped__("stanza")


def test_what_apertium_writes() -> None:
    # lt-proc | cg-proc | apertium-tagger of Debian 12, with the data of apertium-srd-ita 1.1.0
    text = "^Ralph/Ralph<np><ant><m><sg>$ ^Hawtrey/*Hawtrey$^,/,<cm>$ ^nell'/in<pr>+il<det><def><mf><sg>$ ^x/*x$ –"
    assert of_apertium(text) == [
        ("Ralph", "PROPN"),
        ("Hawtrey", "PROPN"),
        (",", "PUNCT"),
        ("nell'", "ADP"),
        ("x", "X"),
        ("–", "PUNCT"),
    ]


def test_the_lexicon_tells_words_apart_by_their_use(monkeypatch: pytest.MonkeyPatch) -> None:
    nouns = ["gatto", "cane", "libro", "tavolo", "sedia", "finestra", "treno", "albero", "ragazzo", "pane"]
    verbs = ["mangiare", "dormire", "correre", "leggere", "scrivere", "andare", "vedere", "parlare", "bere", "cantare"]
    monkeypatch.setattr(lexicon, "top_n_list", lambda *_: ["2024", *nouns, *verbs])
    monkeypatch.setattr(lexicon, "WORDS", 20)
    monkeypatch.setattr(lexicon, "DIRECTIONS", 4)
    pairs = list(zip(nouns, verbs, strict=True))
    made = lexicon.make_lexicon(
        [Sentence((noun, verb.title()), (True,) * 2, ("NOUN", "VERB")) for noun, verb in pairs[:6]]
    )
    assert made.words == (*nouns, *verbs)
    assert made.values.shape == (20, 4 + len(TAGS))
    guesses = made.values[:, 4:].astype(int)
    more_noun = (guesses[:, TAGS.index("NOUN")] - guesses[:, TAGS.index("VERB")]).reshape(2, 10)
    assert more_noun[0, :6].min() > 0 > more_noun[1, :6].max()
    assert np.median(more_noun[0, 6:]) > 0 > np.median(more_noun[1, 6:])  # of those in no sentence


def texts_without_annotation(folder: Path) -> None:
    """In the formats of their publishers."""
    for name in ("KIND/dataset", "NTREX/NTREX-128", "squad-it"):
        (folder / name).mkdir(parents=True)
    wikinews = "Brucia\tO\nl’\tO\nIstituto\tLOC\nLama\tLOC\n\nSì\tO\n.\tO\n"  # the second is too short
    (folder / "KIND/dataset/wikinews_train.tsv").write_text(wikinews, encoding="utf-8")
    (folder / "KIND/dataset/wikinews_test.tsv").write_text("A\tO\nRoma\tLOC\npiove\tO\n", encoding="utf-8")
    ntrex = "Il Galles vota “di nuovo”\nUno due tre quattro cinque sei sette otto nove\n"
    (folder / "NTREX/NTREX-128/newstest2019-ref.ita.txt").write_text(ntrex, encoding="utf-8")
    asked = [{"question": "Chi vinse nel 1973?"}, {"question": "Chi vinse nel 1973?"}]
    paragraph = {"context": "La crisi iniziò dopo.  L'Egitto era in guerra.", "qas": asked}
    with gzip.open(folder / "squad-it/SQuAD_it-test.json.gz", "wt", encoding="utf-8") as file:
        json.dump({"data": [{"paragraphs": [paragraph, paragraph]}]}, file)


def test_texts_are_read_once_and_without_what_judges_have(tmp_path: Path) -> None:
    texts_without_annotation(tmp_path)
    found = read_texts(tmp_path, [])
    assert [sentence.words for sentence in found] == [
        ("Brucia", "l'", "Istituto", "Lama"),
        ("A", "Roma", "piove"),
        ("Il", "Galles", "vota", "“", "di", "nuovo", "”"),
        ("Uno", "due", "tre", "quattro", "cinque", "sei", "sette", "otto", "nove"),
        ("La", "crisi", "iniziò", "dopo", "."),
        ("L'", "Egitto", "era", "in", "guerra", "."),
        ("Chi", "vinse", "nel", "1973", "?"),
    ]
    assert found[0].spaces == (True, False, True, True)
    assert found[5].spaces == (False, True, True, True, False, False)
    assert {tag for sentence in found for tag in sentence.tags} == {"X"}
    words = ("ecco", "UNO", "due", "tre", "quattro", "cinque", "sei", "sette", "otto")
    judged = read_texts(tmp_path, [Sentence(words, (True,) * 9, ("NUM",) * 9)])
    assert judged == found[:3] + found[4:]

    (tmp_path / "squad-it/SQuAD_it-test.json.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"git clone https://github\.com/crux82/squad-it"):
        read_texts(tmp_path, [])


def test_a_teacher_tags_in_the_styles_that_it_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    config, stored = e5_small()
    few = tuple(f"layers.{layer}." for layer in range(2, config.layers))
    first_layers = {name: values for name, values in stored.items() if not name.startswith(few)}
    monkeypatch.setattr(tower, "e5_small", lambda: (replace(config, layers=2), first_layers))
    monkeypatch.setattr(teacher, "RATE", 1e-3)
    places = ("Roma", "Milano", "Torino", "Napoli", "Bologna", "Palermo", "Genova", "Firenze")
    verbs = ("chiude", "decide", "vota", "approva", "paga", "scrive", "risponde", "aspetta")

    def sentences(institution: str) -> list[Sentence]:
        return [
            Sentence(("La", "Regione", verb, "a", place), (True,) * 5, ("DET", institution, "VERB", "ADP", "PROPN"))
            for verb in verbs
            for place in places
        ]

    unseen = [
        Sentence(("La", "Regione", "interviene", "a", "Montepulciano"), (True,) * 5, ("X",) * 5),
        Sentence(("Regione",), (True,), ("X",)),
        Sentence(("a", "Venezia"), (True,) * 2, ("X",) * 2),
    ]
    taught = Teacher([sentences("PROPN"), sentences("NOUN")], unseen)
    taught.train(epochs=12, quiet=True)
    name, noun = TAGS.index("PROPN"), TAGS.index("NOUN")
    one, other, both = (taught.probabilities(unseen, styles, quiet=True) for styles in ([0], [1], [0, 1]))
    assert [rows.shape for rows in both] == [(5, len(TAGS)), (1, len(TAGS)), (2, len(TAGS))]
    assert [TAGS[i] for i in one[0].argmax(1)] == ["DET", "PROPN", "VERB", "ADP", "PROPN"]
    assert [TAGS[i] for i in other[0].argmax(1)] == ["DET", "NOUN", "VERB", "ADP", "PROPN"]
    assert one[0][1, name] > 0.8 > 0.2 > one[0][1, noun]
    assert one[0][1, name] > both[0][1, name] > other[0][1, name]
    np.testing.assert_allclose(both[2].sum(1), 1, atol=1e-5)
    assert TAGS[both[2][1].argmax()] == "PROPN"


def test_sentences_of_our_own(tmp_path: Path) -> None:
    own = read_tagged(Path(taggers.__file__).with_name("sentences.txt"))
    assert len(own) > 50
    assert Sentence(("Piazza", "Grande"), (True, True), ("PROPN", "PROPN")) in own
    (tmp_path / "a.txt").write_text("Roma/PROPN bella\n")
    with pytest.raises(ValueError, match="expected token/TAG"):
        read_tagged(tmp_path / "a.txt")


def test_what_stanza_says() -> None:
    from stanza.models.common.doc import Document

    word = {"deprel": "root", "head": 0}
    sentences = [
        [
            {"id": (1, 2), "text": "Nella"},
            {"id": 1, "text": "In", "upos": "ADP", **word},
            {"id": 2, "text": "la", "upos": "DET", **word},
            {"id": 3, "text": "Dora", "upos": "PROPN", **word},
        ],
        [{"id": 1, "text": "Sì", "upos": "INTJ", **word}],
    ]
    # The classes are Stanza's own; its Italian models are downloads.
    read: list[str] = []
    found = of_stanza(lambda text: read.append(text) or Document(sentences if text else []), ["Nella  Dora. Sì", " "])
    assert found == [[("Nella", "ADP"), ("Dora", "PROPN"), ("Sì", "INTJ")], []]
    assert read == ["Nella Dora. Sì", ""]


def test_the_recipe_says_which_treebank_is_missing(tmp_path: Path) -> None:
    (tmp_path / "UD_Italian-PUD").mkdir()
    (tmp_path / "UD_Italian-PUD" / "it_pud-ud-test.conllu").write_text(CONLLU, encoding="utf-8")
    assert len(read_treebank(tmp_path, "PUD")) == 2
    arguments = ["--treebanks", str(tmp_path), "--texts", str(tmp_path), "--out", str(tmp_path / "a.npz")]
    result = CliRunner().invoke(recipe, arguments)
    assert result.exit_code == 1
    assert "git clone https://github.com/UniversalDependencies/UD_Italian-ParlaMint" in result.output

import random
from pathlib import Path

import numpy as np
import pytest
import spacy
from click.testing import CliRunner

from training.tagger import lexicon, student, taggers
from training.tagger.recipe import main as recipe
from training.tagger.recipe import read_treebank
from training.tagger.student import Lexicon
from training.tagger.taggers import of_apertium, of_stanza, tagger_called
from training.tagger.treebank import TAGS, Sentence, read_conllu, read_tagged, score

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
    student.save(nlp, tmp_path / "a.npz")
    again = student.load(tmp_path / "a.npz")
    assert student.tags(again, sentences) == student.tags(nlp, sentences)
    with np.load(tmp_path / "a.npz") as stored:
        np.savez(tmp_path / "b.npz", **{name: stored[name] for name in stored.files[:-1]})
    with pytest.raises(ValueError, match=r"b.npz is not of this tagger"):
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
    result = CliRunner().invoke(recipe, ["--treebanks", str(tmp_path), "--out", str(tmp_path / "a.npz")])
    assert result.exit_code == 1
    assert "git clone https://github.com/UniversalDependencies/UD_Italian-ParlaMint" in result.output

"""ImageNet's labels in Italian: complete, distinct, right in their articles, and what was changed."""

import hashlib
import re
from collections import Counter
from pathlib import Path

import pytest
from clipita_train.data.concepts import load_ontology, without_article
from clipita_train.evaluate import label_sets
from clipita_train.evaluate.label_sets import IMAGENET_IT, LabelSet, read_columns, read_label_set

from clipita.text.italian import gender, with_article

FOLDER = Path(label_sets.__file__).parent / "labels"
ROWS = list(read_columns((FOLDER / "imagenet_it.tsv").read_text("utf-8"), "imagenet_it.tsv"))
CHANGES = list(read_columns((FOLDER / "imagenet_it_changes.tsv").read_text("utf-8"), "imagenet_it_changes.tsv"))

# The spelling does not tell, or the word has two genders: a blade is "una lama", a car is feminine, an apple too.
GENDERS_BY_HAND = {"un lama": "m", "una Ford Modello T": "f", "una Granny Smith": "f"}
# `with_article` leaves names, and what is longer than five words; "jeans" is plural and does not look it; iron to press
# with is counted.
ARTICLES_BY_HAND = {
    *GENDERS_BY_HAND, "un lama delle Ande", "una Ford T", "una Polaroid", "un ragno da giardino nero e oro",
    "dei jeans", "dei blue jeans", "un ferro per stirare", "una danaide monarca", "una colias", "un due pezzi",
}  # fmt: skip


def names(row: dict[str, str]) -> list[str]:
    return [row["label"], *filter(None, row["synonyms"].split("; "))]


def test_the_ids_are_imagenets_in_its_order() -> None:
    imagenet = [c.id for c in load_ontology().concepts if re.fullmatch(r"n\d{8}", c.id)]
    assert len(ROWS) == 1000
    ids = [row["id"] for row in ROWS]
    assert ids == sorted(imagenet)
    # Of the ids in the original's file, and in the names of EliSchwartz/imagenet-sample-images, joined by line ends.
    digest = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
    assert hashlib.sha256("\n".join(ids).encode()).hexdigest() == digest


def test_no_label_or_synonym_names_two_classes_or_one_twice() -> None:
    count = Counter(without_article(name).lower() for row in ROWS for name in names(row))
    assert {name for name, times in count.items() if times > 1} == set()


def test_every_article_is_that_of_the_noun_but_for_those_by_hand() -> None:
    wrong = {name for row in ROWS for name in names(row) if with_article(without_article(name)) != name}
    assert wrong == ARTICLES_BY_HAND


def test_every_gender_is_that_of_article_and_noun() -> None:
    for row in ROWS:
        label = row["label"]
        known, plural = row["gender"][0], row["gender"][1:] == "p"
        assert known == GENDERS_BY_HAND.get(label, gender(without_article(label))), label
        article = label.removesuffix(without_article(label)).strip()
        assert plural == (article in ("dei", "degli", "delle")), label
        if article not in ("un'", "dell'"):
            assert known == ("f" if article in ("una", "della", "delle") else "m"), label
        assert (known == "f") or article != "un'", label


def test_kinds_are_labels_of_the_tables_and_none_is_the_class_itself() -> None:
    labels = {c.label for c in load_ontology().concepts}
    for row in ROWS:
        kinds = row["kinds"].split("; ")
        assert set(kinds) <= labels, row
        assert kinds != [""]
        assert not {*kinds} & {*names(row)}, row


def test_every_change_is_listed_with_its_reason() -> None:
    ours = {row["id"]: row["label"] for row in ROWS}
    assert len(CHANGES) == len({change["id"] for change in CHANGES})
    reasons = {
        "wrong sense", "duplicate", "not its name", "not Italian", "ambiguous", "too broad", "too narrow", "spelling",
        "incomplete", "article", "gender", "number",
    }  # fmt: skip
    for change in CHANGES:
        assert change["ours"] == ours[change["id"]] != change["original"], change
        assert change["reason"].split(": ")[0] in reasons, change


def test_the_original_is_read_from_its_own_file(tmp_path: Path) -> None:
    """The file as published has eight columns; what ours leaves of it must be the same label."""
    header = (
        "set_id\tsyn_set\tfirst_syn\tquery_long\tquery_short\tquery_short_translated\tquery_long_translated\tclass_id"
    )
    changed = {change["id"]: change["original"] for change in CHANGES}
    lines = [header]
    for number, row in enumerate(ROWS, 1):
        label = changed.get(row["id"], row["label"])
        lines.append(f"{row['id']}\tx, y\tx\ta photo of a x\ta x\t{label}\tuna foto di {label}\t{number}")
    path = tmp_path / "imagenet_labels_IT.tsv"
    path.write_text("\r\n".join(lines) + "\r\n", "utf-8")
    original, ours = read_label_set(f"{path}"), read_label_set(IMAGENET_IT)
    assert original.name == "imagenet_labels_IT.tsv"
    assert original.ids == ours.ids
    assert (original.twins, ours.twins) == (39, 0)
    assert len(set(original.labels)) == 1000 - 39 + 19
    assert original.labels[5] == "un raggio elettrico"
    assert ours.labels[5] == "una torpedine"


def test_other_label_sets_come_from_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.tsv"
    path.write_text("# of mine\nlabel\tid\tnote\n\ngatto\tcat\tmicio\nacqua\twater\t\n", "utf-8")
    mine = read_label_set(f"{path}")
    assert mine == LabelSet("mine.tsv", ("cat", "water"), ("gatto", "acqua"))
    assert mine.phrases(articles=True) == ["un gatto", "dell'acqua"]
    assert mine.phrases(articles=False) == ["gatto", "acqua"]
    assert mine.by_name == {"gatto": 0, "acqua": 1, "cat": 0, "water": 1}


def test_a_label_of_two_classes_names_neither() -> None:
    twins = LabelSet("x", ("a", "b", "c"), ("una gru", "una gru", "un Molo"))
    assert twins.by_name == {"a": 0, "b": 1, "c": 2, "un molo": 2, "molo": 2}
    assert twins.twins == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names the columns 'id' and 'label'"),
        ("id\tlabel\n", "names the columns 'id' and 'label'"),
        ("id\tname\na\tb\n", "names the columns 'id' and 'label'"),
        ("id\tlabel\na\n", "line 2: expected 2 columns, got 1"),
        ("id\tlabel\na\tb\n\tc\n", "class 2 has no id"),
        ("id\tlabel\na\t\n", "class 1 has no label"),
        ("id\tlabel\na\tb\na\tc\n", "the class 'a' is there 2 times"),
    ],
)
def test_what_is_no_label_set(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text(text, "utf-8")
    with pytest.raises(ValueError, match=message):
        read_label_set(f"{tmp_path}/x.tsv")
    with pytest.raises(FileNotFoundError, match="no label set 'imagenet': expected 'imagenet-it' or a file"):
        read_label_set("imagenet")

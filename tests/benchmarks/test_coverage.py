"""The table of how many training photographs show what people ask for."""

from clipita_train.data.concepts import load_ontology
from clipita_train.data.photographs.example import Example

from benchmarks.quality.coverage import coverage, markdown

EXAMPLES = [
    Example("a.jpg", "x", "train", "kitten"),
    Example("b.jpg", "x", "train", "cat"),
    Example("c.jpg", "x", "dev", "cat"),
    Example("d.jpg", "x", "train", captions=("un gatto",)),
]


def test_a_kind_is_shown_by_the_photographs_of_narrower_kinds_too() -> None:
    found = {each.label: each for each in coverage(EXAMPLES, load_ontology())}
    assert found["un gattino"].photographs == 1
    assert found["un gatto"].photographs == 2
    assert found["un animale"].photographs == 2
    assert found["un cane"].photographs == 0
    assert found["una casa"].zipf > found["un gerenuk"].zipf


def test_the_table_lists_the_poorest_of_the_common_words() -> None:
    table = markdown(coverage(EXAMPLES, load_ontology()), EXAMPLES, 5)
    assert table.startswith("3 photographs to train on, 1 of them with captions;")
    poorest = table.splitlines()[-5:]
    assert all(line.endswith("| 0 |") for line in poorest)
    assert "un gatto" not in table

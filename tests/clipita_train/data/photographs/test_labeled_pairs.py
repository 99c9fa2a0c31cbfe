import json

from click.testing import CliRunner
from clipita_train.cli import main
from clipita_train.data.concepts import load_ontology, training_texts
from clipita_train.data.photographs.example import Example
from clipita_train.data.photographs.labeled_pairs import labeled_pairs

CAT = "n02124075"
EXAMPLES = [
    *(Example(f"cat/{number}.jpg", "tiny_imagenet", "train", concept=CAT) for number in range(3)),
    Example("cat/dev.jpg", "tiny_imagenet", "dev", concept=CAT),
    Example("dog.jpg", "flickr8k", "train", captions=("a dog runs", "a brown dog")),
    Example("nothing.jpg", "flickr8k", "train"),
]


def test_training_photographs_come_with_what_italian_says_of_them():
    pairs = list(labeled_pairs(EXAMPLES, each=2))
    assert [pair["image_path"] for pair in pairs] == ["cat/0.jpg", "cat/1.jpg", "dog.jpg"]
    assert pairs[0]["captions"] == list(training_texts(load_ontology()[CAT]))
    assert "un gatto egiziano" in pairs[0]["captions"]
    assert pairs[2]["captions"] == ["a dog runs", "a brown dog"]
    assert len(list(labeled_pairs(EXAMPLES))) == 4


def test_the_command_writes_them_as_json_lines(tmp_path):
    lines = [json.dumps(example.to_json()) + "\n" for example in EXAMPLES]
    (tmp_path / "manifest.jsonl").write_text("".join(lines))
    out = tmp_path / "lists" / "pairs.jsonl"
    arguments = ["pairs", "mini", "--work", str(tmp_path), "--out", str(out), "--each", "1"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.output == f"wrote {out}: 2 photographs\n"
    assert [json.loads(line) for line in out.read_text().splitlines()] == list(labeled_pairs(EXAMPLES, each=1))
    missing = CliRunner().invoke(main, [*arguments[:3], str(tmp_path / "lists"), *arguments[4:]])
    assert "write it first, with clipita-train prepare" in missing.output

"""Scores of the everyday sets against counting by hand, on a tiny bundle, and the command."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from clipita_train.cli import main
from clipita_train.evaluate.everyday import scores, sets
from clipita_train.evaluate.everyday.scores import AREA, embedded, markdown, measure, search_archive
from clipita_train.evaluate.everyday.sets import ARCHIVE, SENTENCES, EverydaySets, Labeled, Photograph, Query, files
from PIL import Image
from support.tiny import make_tiny_bundle

import clipita

pytestmark = pytest.mark.filterwarnings("ignore:.*are longer than .* tokens")
BOTH = (ARCHIVE, SENTENCES)
NAMES = ("a1", "a2", "a3", "a4", "a5", "a6")
TINY = EverydaySets(
    tuple(Photograph(name, "chi/sa", "0" * 40, f"{name}.png", number, (ARCHIVE, SENTENCES)) for number, name in
          enumerate(NAMES)),
    (
        Labeled(ARCHIVE, "a1", "un cane", ("un gatto",)),
        Labeled(ARCHIVE, "a2", "un gatto", ()),
        Labeled(ARCHIVE, "a3", "il mare", ("un cane", "un gatto")),
        Labeled(ARCHIVE, "a4", "un cane", ()),
    ),
    (
        Query("un cane", ("a1", "a4"), ("a3",)),
        Query("un gatto nero", ("a2",), ()),
        Query("il mare", ("a3", "a5", "a6"), ("a1", "a2")),
        Query("una foto", (), ()),
        Query("un gatto", (), ()),
    ),
    {"a1": "un cane nero", "a2": "un gatto", "a5": "il mare", "a6": "una foto di un cane"},
)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Clones with photographs of noise, and tables of them."""
    monkeypatch.setattr(sets, "everyday_sets", lambda: TINY)
    monkeypatch.setattr(scores, "everyday_sets", lambda: TINY)
    random = np.random.default_rng(0)
    (tmp_path / "chi" / "sa").mkdir(parents=True)
    for name in NAMES:
        pixels = random.integers(0, 256, (3, 3, 3), np.uint8).repeat(20, 0).repeat(20, 1)
        Image.fromarray(pixels).save(tmp_path / "chi" / "sa" / f"{name}.png")
    return tmp_path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> clipita.Model:
    return clipita.load(make_tiny_bundle(tmp_path_factory.mktemp("everyday") / "tiny").folder)


def test_search_is_scored_as_by_hand(root: Path, model: clipita.Model, tmp_path: Path) -> None:
    found = {
        (row.set, row.score): row.estimates[0].value
        for row in measure([model], root, tmp_path / "cache", only=BOTH).rows
    }
    images = {name: model.encode_image(root / "chi" / "sa" / f"{name}.png") for name in NAMES}
    firsts, precisions, at_five = [], [], []
    for query in TINY.queries[:3]:
        text = model.encode_text(query.text)
        order = sorted(NAMES, key=lambda name: -float(images[name] @ text))
        firsts.append(order[0] in query.relevant)
        without = [name for name in order if name not in query.acceptable]
        hits = [number for number, name in enumerate(without, 1) if name in query.relevant]
        precisions.append(np.mean([count / place for count, place in enumerate(hits, 1)]))
        either = {*query.relevant, *query.acceptable}
        at_five.append(len(either & set(order[:5])) / min(5, len(either)))
    assert found[ARCHIVE, "first right"] == pytest.approx(np.mean(firsts))
    assert found[ARCHIVE, "average precision"] == pytest.approx(np.mean(precisions))
    assert found[ARCHIVE, "precision at 5"] == pytest.approx(np.mean(at_five))
    best = [max(float(images[name] @ model.encode_text(query.text)) for name in NAMES) for query in TINY.queries]
    above = [(there > absent) for there in best[:3] for absent in best[3:]]
    assert found[ARCHIVE, AREA] == pytest.approx(np.mean(above))
    told = list(TINY.sentences)
    ranks = []
    for name in told:
        text = model.encode_text(TINY.sentences[name])
        ranks.append(1 + sum(float(images[other] @ text) > float(images[name] @ text) for other in told))
    assert found[SENTENCES, "MRR@10"] == pytest.approx(np.mean([1 / rank for rank in ranks]))
    assert found[SENTENCES, "Recall@1"] == pytest.approx(np.mean([rank == 1 for rank in ranks]))


def test_labels_are_scored_as_by_hand(root: Path, model: clipita.Model, tmp_path: Path) -> None:
    found = {row.score: row for row in measure([model], root, tmp_path / "cache", only=[ARCHIVE]).rows}
    words = ["un cane", "un gatto", "il mare"]
    bank = model.label_bank(words).embeddings
    given = {
        labeled: words[int((bank @ model.encode_image(root / "chi" / "sa" / f"{labeled.id}.png")).argmax())]
        for labeled in TINY.labels
    }
    assert found["named, strict"].count == 4
    assert found["named, strict"].estimates[0].value == np.mean([word == told.label for told, word in given.items()])
    fine = [word in (told.label, *told.also) for told, word in given.items()]
    assert found["named"].estimates[0].value == np.mean(fine)


def test_a_query_that_lost_all_that_show_it_is_not_asked(root: Path, model: clipita.Model, tmp_path: Path) -> None:
    places = files(TINY.photographs, root)
    images = embedded(model, places, tmp_path / "cache")
    del images["a2"]
    found = search_archive(model, images, tmp_path / "cache")
    assert [query.text for query in found.queries] == ["un cane", "il mare", "una foto", "un gatto"]
    assert found.names == ("a1", "a3", "a4", "a5", "a6")
    assert found.relevant.sum(1).tolist() == [2, 3, 0, 0]
    assert found.acceptable.sum(1).tolist() == [1, 1, 0, 0]


def test_a_photograph_that_cannot_be_read_is_an_error(root: Path, model: clipita.Model, tmp_path: Path) -> None:
    (root / "chi" / "sa" / "a3.png").write_text("no photograph")
    with pytest.raises(ValueError, match=r"a3\.png cannot be read"):
        measure([model], root, tmp_path / "cache", only=BOTH)


def test_two_models_stand_side_by_side(root: Path, model: clipita.Model, tmp_path: Path) -> None:
    table = markdown(measure([model, model], root, tmp_path / "cache", only=BOTH))
    header, _, *lines = table.splitlines()
    name = f"{model.name} {model.fingerprint[:8]}"
    assert header == f"| set | score | of | {name} | {name} | {name} - {name} |"
    assert all("+0.000" in line for line in lines)
    assert sum(line.startswith("| archive |") for line in lines) == 6
    assert sum(line.startswith("| sentences |") for line in lines) == 2


def test_the_command_writes_its_table_and_says_what_is_missing(root: Path, tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "bundle").folder
    asked = ["evaluate", "everyday", "--root", str(root), "--model", str(bundle), "--only", ARCHIVE]
    result = CliRunner().invoke(main, [*asked, "--out", str(tmp_path / "scores")])
    assert result.exit_code == 0, result.output
    assert "| archive | first right | 3 |" in result.output
    written = json.loads((tmp_path / "scores.json").read_text("utf-8"))
    assert [row["set"] for row in written["rows"]] == [ARCHIVE] * 6
    result = CliRunner().invoke(main, [*asked[:2], "--root", str(tmp_path / "other"), *asked[4:]])
    assert result.exit_code == 1
    assert "git clone https://github.com/chi/sa" in result.output
    result = CliRunner().invoke(main, [*asked, "--without", "chi/sa"])
    assert result.exit_code == 1
    assert "no photograph is left of archive" in result.output

"""What single steps of a build do with rows that a whole build meets rarely."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clipita_train.data.builder import translated
from clipita_train.data.builder.build import build
from clipita_train.data.builder.judge import Judge
from clipita_train.data.builder.recipe import DataRecipe, Rules, Source
from clipita_train.data.builder.runners import Runner, Task
from clipita_train.data.builder.steps import Images, Text
from clipita_train.data.builder.translated import StoppedError
from clipita_train.data.pairs.engines import EngineSettings
from clipita_train.data.pairs.translate import Failure
from PIL import Image
from support import PHOTOS


class InThisProcess(Runner):
    def __exit__(self, *_: object) -> None:
        pass

    def run(self, tasks: Sequence[Task]) -> Iterator[None]:
        for task in tasks:
            yield task.run()


class Words:
    """Translates the words that it knows, and counts the texts that it is asked for."""

    name, identity, batch, longest = "parole", ("1",), 2, 1000
    known: ClassVar = {"a": "un", "cat": "gatto", "dog": "cane", "sleeps": "dorme", "runs": "corre"}

    def __init__(self) -> None:
        self.asked: list[str] = []

    def translate(self, texts: Sequence[str]) -> list[str | Failure]:
        self.asked += texts
        return [self._text(text) for text in texts]

    def _text(self, text: str) -> str | Failure:
        if unknown := [word for word in text.split() if word not in self.known]:
            return Failure(f"no word {unknown[0]!r}")
        return " ".join(self.known[word] for word in text.split())


@pytest.fixture
def english(tmp_path: Path) -> DataRecipe:
    photos = PHOTOS
    lines = ["image,caption", "gatto.jpg,a cat sleeps", "razzo.jpg,a rocket", "caffe.jpg,a dog runs"]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "photos").symlink_to(photos)
    source = Source("inglese", "table", ("a.csv",), images="photos", licence="CC0", language="en", translated=True)
    return DataRecipe("x", (source,), translation=EngineSettings("parole"), chunk_rows=2)


def test_captions_are_translated_before_they_are_judged(
    english: DataRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Words()
    monkeypatch.setattr(translated, "open_engine", lambda settings: engine)
    out = tmp_path / "out"
    told = build(english, tmp_path, out, InThisProcess(), show_progress=False)
    rows = pq.read_table(out / "manifest.parquet").to_pylist()
    assert [row["captions"] for row in rows] == [["un gatto dorme"], [""], ["un cane corre"]]
    assert [row["original"] for row in rows] == [["a cat sleeps"], ["a rocket"], ["a dog runs"]]
    assert [row["caption_reasons"] for row in rows] == [[""], ["not translated"], [""]]
    assert rows[1]["translation"] == ["failed: no word 'rocket'"]
    assert told["sources"]["inglese"]["captions_kept"] == 2


def test_a_budget_stops_the_build_and_a_larger_one_goes_on_from_there(
    english: DataRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Words()
    monkeypatch.setattr(translated, "open_engine", lambda settings: engine)
    for budget in (10, 20):
        with pytest.raises(StoppedError, match=r"parole: budget\. What was translated is kept: build again"):
            build(replace(english, translation_budget=budget), tmp_path, tmp_path, InThisProcess(), show_progress=False)
    build(replace(english, translation_budget=100), tmp_path, tmp_path, InThisProcess(), show_progress=False)
    assert engine.asked.count("a cat sleeps") == 1
    assert engine.asked.count("a dog runs") == 1


def test_a_source_is_translated_only_from_the_language_of_the_engine(english: DataRecipe) -> None:
    with pytest.raises(ValueError, match="translation must be given, from 'en', not None"):
        replace(english, translation=None)


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("Un gatto sul divano", ""),
        ("Via", "too short"),
        ("Parigi", "too short"),
        ("la foto " * 200, "too long"),
        ("IMG_2041.JPG", "the name of a file"),
        ("foto di IMG_2041.JPG", "the name of a file"),
        ("12/03/2019 - 14:30 (2)", "too short"),
        ("foto, n. 12/03/2019 - 14:30 (2)", "too few letters"),
        ("Clicca qui per ingrandire la foto", "boilerplate"),
        ("Scrivi a mario.rossi@example.it per la foto", "personal data"),
        ("A man is riding his bicycle down the street in the rain", "another language"),
        ("", "not translated"),
    ],
)
def test_captions_are_judged_by_the_rules(caption: str, reason: str) -> None:
    table = pa.table({"captions": pa.array([[caption]], pa.list_(pa.string()))})
    columns = {"download": [None], "width": [640], "height": [480], "problem": [None]}
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values, pa.string() if values == [None] else pa.int32()))
    text = Text().load()(table)
    for name in text.column_names:
        table = table.append_column(name, text[name])
    found = Judge(Rules(), "it").load()(table).to_pylist()[0]
    assert found["caption_reasons"] == [reason]
    assert found["reason"] == ("no caption is left" if reason else "")


def test_captions_that_do_not_fit_or_only_name_are_dropped_by_what_models_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_capitals(captions: Sequence[str]) -> list[list[tuple[str, str]]]:
        return [[(word, "PROPN" if word.istitle() else "X") for word in caption.split()] for caption in captions]

    monkeypatch.setattr("clipita_train.data.captions.proper_nouns.tagger_called", {"iniziali": by_capitals}.get)
    photos = PHOTOS
    (tmp_path / "photos").symlink_to(photos)
    lines = [
        "image,caption",
        "gatto.jpg,un gatto tigrato",
        "gatto.jpg,una macchina da corsa",
        "razzo.jpg,Roberto Baggio",
    ]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    rules = Rules(min_score=0.2, propn_share=0.8)
    source = Source("foto", "table", ("a.csv",), images="photos", licence="CC0", rules=rules)
    recipe = DataRecipe("x", (source,), tagger="iniziali")
    build(recipe, tmp_path, tmp_path / "out", InThisProcess(), show_progress=False)
    rows = pq.read_table(tmp_path / "out" / "manifest.parquet").to_pylist()
    assert [row["caption_reasons"] for row in rows] == [[""], ["does not fit the photograph"], ["proper nouns"]]
    assert rows[0]["score"][0] > 0.3 > 0.1 > rows[1]["score"][0]
    assert [row["propn_share"] for row in rows] == [[0.0], [0.0], [1.0]]


def test_of_a_concept_with_many_rows_about_as_many_are_kept_as_its_cap(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["image,caption"]
    for number in range(60):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / f"{number}.png")
        label = "una fotografia di prova" if number >= 55 else "un pinguino" if number >= 50 else "un gatto"
        lines.append(f"{number}.png,ecco {label}")
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    source = Source("foto", "table", ("a.csv",), licence="CC0", rules=Rules(other_language=None))
    recipe = DataRecipe("x", (source,), concept_cap=10)
    build(recipe, tmp_path, tmp_path / "out", InThisProcess(), show_progress=False)
    rows = pq.read_table(tmp_path / "out" / "manifest.parquet").to_pylist()
    reasons = [row["reason"] for row in rows]
    assert set(reasons) == {"", "of concepts with many rows"}
    assert reasons[50:] == [""] * 10
    assert 4 <= reasons[:50].count("") <= 18  # binomial, 50 x 0.2: 10 +- 2.8


def test_a_photograph_that_has_gone_since_its_row_was_read_is_named(tmp_path: Path) -> None:
    table = pa.table({"path": ["gone.jpg"], "file": pa.nulls(1, pa.string()), "bytes": pa.nulls(1, pa.binary())})
    found = Images(tmp_path, tmp_path).load()(table).to_pylist()[0]
    assert (found["sha256"], found["problem"]) == (None, "No such file or directory")

"""The tables of quality: of their figures, blank where nothing was measured, and run on a small folder."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from clipita_train.data.captions.files import read_captions
from clipita_train.evaluate.development import Score, markdown
from clipita_train.evaluate.label_sets import read_label_set
from PIL import Image
from support.tiny import make_tiny_bundle

from benchmarks.quality import __main__ as command
from benchmarks.quality import sets, tables
from benchmarks.quality.published import PUBLISHED

HERE = Path(tables.__file__).parent


def test_the_table_is_of_its_figures() -> None:
    report = json.loads((HERE / "tables.json").read_text("utf-8"))
    assert (HERE / "tables.md").read_text("utf-8") == tables.markdown(report)


def test_the_table_of_untrained_towers_is_of_its_figures() -> None:
    scores = json.loads((HERE / "untrained.json").read_text("utf-8"))["scores"]
    assert (HERE / "untrained.md").read_text("utf-8") == markdown([Score(**score) for score in scores])


def test_what_was_published_never_stands_as_measured() -> None:
    report = json.loads((HERE / "tables.json").read_text("utf-8"))
    rows = report["retrieval"] + report["zero_shot"]
    assert all(("scores" in row) != ("missing" in row) for row in rows)
    assert all("fingerprint" in row for row in rows if "scores" in row)
    lines = tables.markdown(report).splitlines()
    for published in PUBLISHED:
        figures = " | ".join(f"{value:.4f}" for value in published.figures.values())
        (line,) = [line for line in lines if published.model in line and figures in line]
        assert f"published, {published.source}" in line
    for line in lines:
        if "not measured: " in line:
            assert not any(cell.strip().startswith("0.") for cell in line.split("|"))


def test_the_captions_are_one_for_each_of_318_photographs_and_differ() -> None:
    captions = read_captions(HERE / "flickr8k_it.jsonl")
    assert len(captions) == 318
    assert {len(item.captions) for item in captions} == {1}
    assert len({item.captions[0] for item in captions}) == 318


@pytest.mark.filterwarnings("ignore:.*are longer than .* tokens")  # the tiny model's alphabet is of single letters
def test_the_command_measures_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tiny_bundle(tmp_path / "tiny", "float32")
    monkeypatch.setattr(command, "MODELS", {"clipita-mini": f"{tmp_path}/tiny", "mCLIP": "nobody/nothing"})
    labels = read_label_set("imagenet-it")
    samples = tmp_path / "root" / "EliSchwartz" / "imagenet-sample-images"
    flickr = tmp_path / "root" / "RlNZLER" / "Image-Text-Matching" / "data" / "images"
    for folder in (samples, flickr):
        folder.mkdir(parents=True)
    for i, name in enumerate(labels.ids[:4]):
        Image.new("RGB", (50, 44), (60 * i, 10, 200)).save(samples / f"{name}_x.JPEG")
    captions = read_captions(HERE / "flickr8k_it.jsonl")
    for i, item in enumerate(captions[:3]):
        Image.new("RGB", (50, 44), (10, 70 * i, 90)).save(flickr / item.image)

    arguments = ["--root", f"{tmp_path}/root", "--out", f"{tmp_path}/out"]
    result = CliRunner().invoke(command.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "tables.json").read_text("utf-8"))
    assert (tmp_path / "out" / "tables.md").read_text("utf-8").strip() in result.output
    found = {(row["set"], row["model"], row.get("labels")): row for row in report["retrieval"] + report["zero_shot"]}
    flickr_row = found["Flickr8k-it", "clipita-mini", None]
    assert (flickr_row["photographs"], flickr_row["captions"], flickr_row["left_out"]) == (3, 3, 315)
    sample_row = found["imagenet-sample-images", "clipita-mini", "imagenet-it"]
    assert (sample_row["photographs"], sample_row["classes"]) == (4, 4)
    assert set(sample_row["scores"]) == {"bare", "article", "model"}
    assert found["imagenet-sample-images", "clipita-mini", "the original's"]["missing"] == f"no {sets.ORIGINAL_LABELS}"
    assert found["Flickr8k-it", "mCLIP", None]["missing"] == "no weights"
    assert found["XTD-it", "clipita-mini", None]["missing"] == "no xtd/test_1kcaptions_it.txt"

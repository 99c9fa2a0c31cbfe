"""The report of a build: what it counts and shows, that captions can do nothing in it, and how a browser shows it."""

import io
import json
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from clipita_train.cli import main
from clipita_train.data.builder.build import build
from clipita_train.data.builder.recipe import DataRecipe, Rules, Source
from clipita_train.data.builder.runners import LocalRunner
from clipita_train.data.builder.store import row_id
from clipita_train.data.report.charts import histogram, short
from clipita_train.data.report.gather import QUANTITIES, STAGES, Gathered, Histogram, _fill, gather, stage_of
from clipita_train.data.report.page import page
from clipita_train.data.report.pictures import thumbnails
from clipita_train.data.report.write import write_report
from PIL import Image
from support.sources_of_photographs import RECIPE, write_sources

VOID = {"meta", "img", "br", "rect", "line"}
HOSTILE = [
    "Un gatto <script>document.title = 'violato'</script> sul divano",
    "Un cane <img src=x onerror=\"document.title='violato'\"> nel prato verde",
    "</bdi></li></ul></article></main><h1>Tutto mio</h1> dice il cartello",
    "Una casa \"><svg onload=alert(1)> con gli alberi & l'erba &lt;alta&gt;",
    "Un treno \u202e che va al contrario, con una parola " + "lunghissima" * 30,
]


class Page(HTMLParser):
    """The elements and the text of a page; closing tags have to fit."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.attributes = [], Counter(), [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        self.attributes += [(tag, *one) for one in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags[tag] += 1
        self.attributes += [(tag, *one) for one in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.append(text)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The root and the folder of a small build, with its report."""
    root, out = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("out")
    write_sources(root)
    with LocalRunner(1) as runner:
        build(RECIPE, root, out, runner, show_progress=False)
    write_report(out, root)
    return root, out


@pytest.mark.slow
def test_counts_are_those_of_the_build(built):
    _, out = built
    told, found = json.loads((out / "build.json").read_text())["sources"], gather(out)
    for source in ("righe", "cartella", "tar"):
        mine = {reason: count for (one, reason), count in found.rows.items() if one == source and reason}
        assert mine == told[source]["dropped"]
        assert sum(count for (one, _), count in found.rows.items() if one == source) == told[source]["rows"]
        assert found.captions_kept[source] == told[source]["captions_kept"]
        assert [found.splits[source, split] for split in ("train", "validation")] == [
            told[source]["train"], told[source]["validation"],
        ]  # fmt: skip
        reasons = {reason: count for (one, reason), count in found.captions.items() if one == source and reason}
        assert reasons == told[source]["captions_dropped"]
    assert "other rules" not in {stage_of(reason) for _, reason in found.rows if reason}


def test_histograms_have_every_row_that_has_the_number(built):
    _, out = built
    rows, found = pq.read_table(out / "manifest.parquet").to_pylist(), gather(out)
    named = {one.quantity.title: one for one in found.histograms}
    sides = named["Shorter side of the photograph, pixels"]
    sizes = [(min(r["width"], r["height"]), not r["reason"]) for r in rows if r["width"] is not None]
    assert sides.kept.sum() == sum(kept for _, kept in sizes)
    assert sides.kept.sum() + sides.dropped.sum() == len(sizes)
    assert sides.dropped[0] == sum(side < 32 for side, _ in sizes) == 1
    words = named["Words of a caption"]
    assert words.kept.sum() == sum(found.captions_kept.values())
    assert words.kept.sum() + words.dropped.sum() == sum(len(r["captions"]) for r in rows)
    assert {q.title for q in QUANTITIES} - set(named) == {"Share of proper nouns", "Cosine of photograph and caption"}


def test_a_column_of_one_source_only_is_that_sources(tmp_path):
    (_, shares) = (one for one in QUANTITIES if one.columns in (("words",), ("propn_share",)))
    rows = {
        "reason": ["", "", "too small"],
        "caption_reasons": [["", "proper nouns"], [""], [""]],
        "propn_share": [[0.05, 0.95], None, [float("nan")]],
    }
    histogram = Histogram(shares, np.zeros(10, int), np.zeros(10, int))
    _fill(pa.table(rows), histogram)
    assert (histogram.kept.tolist(), histogram.dropped.tolist()) == ([1] + [0] * 9, [0] * 9 + [1])


def test_copies_are_shown_beside_what_they_are_copies_of(built):
    _, out = built
    found = gather(out)
    rows = pq.read_table(out / "manifest.parquet").to_pylist()
    copies = {row_id(row): row["copy_of"] for row in rows if row["copy_of"]}
    assert copies
    shown = {row_id(copy): row_id(group[0]) for group in found.groups for copy in group[1:]}
    assert shown == copies
    assert sum(size - 1 for size in found.group_sizes.elements()) == len(copies)


def test_samples_do_not_depend_on_how_the_manifest_is_read(built, monkeypatch):
    _, out = built
    whole = gather(out, examples=2)
    monkeypatch.setattr("clipita_train.data.report.gather.BATCH", 3)
    parts = gather(out, examples=2)
    assert (parts.kept, parts.dropped, parts.groups) == (whole.kept, whole.dropped, whole.groups)
    assert all(len(rows) <= 2 for rows in whole.dropped.values())


def test_every_row_that_can_be_has_its_picture(built):
    root, out = built
    rows = pq.read_table(out / "manifest.parquet").to_pylist()
    pictures = thumbnails(rows, root, out)
    for row in rows:
        readable = row["problem"] is None
        assert pictures[row_id(row)].startswith("data:image/jpeg;base64,") is readable, row
    without_root = thumbnails(rows, None, out)
    for row in rows:  # those that are kept, and those of the archive
        there = row["record"] is not None or row["source"] == "tar"
        assert without_root[row_id(row)].startswith("data:") is there


def test_the_page_stands_by_itself(built):
    _, out = built
    text = (out / "report.html").read_text()
    parsed = Page(text)
    assert parsed.tags["script"] == 0
    for tag, name, value in parsed.attributes:
        assert not name.startswith("on")
        if name in ("src", "href"):
            assert (tag, name) == ("img", "src")
            assert value.startswith("data:image/jpeg;base64,")
    assert "url(" not in text
    assert "@import" not in text
    assert all(any(reason in piece for piece in parsed.texts) for _, reason in gather(out).rows)


def test_the_command_writes_it_again(built, tmp_path):
    root, out = built
    before = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    result = CliRunner().invoke(main, ["data", "report", str(out), "--root", str(root)])
    assert result.exit_code == 0, result.output
    assert (out / "report.html").read_bytes() == before
    failed = CliRunner().invoke(main, ["data", "report", str(tmp_path)])
    assert failed.exit_code == 1
    assert "build the data set first" in failed.output


def square(colour):
    buffer = io.BytesIO()
    noise = np.random.default_rng(sum(colour)).integers(0, 2, (64, 64, 3), np.uint8) * 9
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).resize((128, 128), 0).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The folder of a build of captions, and a file's name, that try to be more than text."""
    root, out = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("out")
    folder = root / "foto"
    folder.mkdir()
    for number, caption in enumerate(HOSTILE):
        name = f"{number} <img src=x onerror=alert(1)>"
        (folder / f"{name}.png").write_bytes(square((250, 0, 40 * number)))
        (folder / f"{name}.txt").write_text(caption)
    rules = Rules(max_characters=2000, other_language=None)
    source = Source("<b>foto", "sidecars", ("foto",), licence="<i>mia</i>", rules=rules)
    with LocalRunner(1) as runner:
        build(DataRecipe("<u>ostile", (source,)), root, out, runner, show_progress=False)
    write_report(out, root)
    return out


@pytest.mark.slow
def test_captions_are_text_and_nothing_else(hostile):
    text = (hostile / "report.html").read_text()
    parsed = Page(text)
    for caption in HOSTILE:
        assert caption in parsed.texts
    assert parsed.tags["script"] == parsed.tags["u"] == 0
    assert parsed.tags["h1"] == 1
    assert parsed.tags["img"] == text.count("data:image/jpeg;base64,")
    assert not [one for one in parsed.attributes if one[1].startswith("on")]


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium")


def browse(path, *arguments, folder):
    """What headless Chromium says of a file."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}"]
    done = subprocess.run(
        [*command, *arguments, path.as_uri()], capture_output=True, text=True, timeout=300, check=True
    )
    return done.stdout


@in_browser
def test_a_browser_runs_nothing_of_it(hostile, tmp_path):
    dom = browse(hostile / "report.html", "--dump-dom", "--virtual-time-budget=3000", folder=tmp_path)
    assert "<title>&lt;u&gt;ostile: report of a build</title>" in dom
    assert dom.count("<h1>") == 1
    assert not re.search(r"<script|<img(?! src=\"data:image/jpeg)", dom)


@pytest.mark.slow
@in_browser
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_its_pictures_light_and_dark(hostile, tmp_path, dark):
    shot = tmp_path / "shot.png"
    mode = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    browse(hostile / "report.html", mode, "--window-size=1200,3600", f"--screenshot={shot}", folder=tmp_path / "user")
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    paper = pixels[5, 5]
    assert bool(paper.mean() < 60) is dark
    red = (pixels[..., 0] > 200) & (pixels[..., 1] < 60)
    assert red.sum() > len(HOSTILE) * 90 * 90
    ink = np.abs(pixels - paper).sum(-1) > 450 if dark else np.abs(pixels - paper).sum(-1) > 550
    assert ink.sum() > 5000  # text that stands out from the paper


def test_translations_are_shown_with_what_they_are_of():
    row = {"source": "cc", "key": "1", "captions": ["Un gatto", ""], "caption_reasons": ["", "not translated"]}
    row |= {"original": ["A <cat>", "???"], "width": 9, "height": 9, "copy_of": None, "reason": "", "split": "train"}
    told = {"recipe": "prova", "build": "0", "sources": {}}
    shown = Page(page(told, Gathered(kept={"cc": [row]}), {"cc/1": "no picture"})).texts
    assert [text for text in shown if text in ("Un gatto", "A <cat>", "???", "not translated")] == [
        "Un gatto", "A <cat>", "???", "not translated",
    ]  # fmt: skip


def test_reasons_belong_to_steps():
    reasons = ["download: http_404", "the photograph is too small", "no caption is left"]
    reasons += ["an evaluation set has the photograph", "the same photograph", "a copy of the photograph"]
    reasons += ["of concepts with many rows", "too blue"]
    assert list(dict.fromkeys(map(stage_of, reasons))) == list(STAGES)


def test_axes_have_round_numbers():
    assert [short(n) for n in (0, 999, 1000, 12_300, 1_400_000)] == ["0", "999", "1k", "12.3k", "1.4M"]
    quantity = QUANTITIES[0]
    empty = np.zeros(len(quantity.edges), int)
    assert ">1<" in histogram(Histogram(quantity, empty, empty))
    one = empty.copy()
    one[3] = 437
    drawn = histogram(Histogram(quantity, one, empty))
    assert all(f">{n}<" in drawn for n in (0, 200, 400, 600))
    assert "96 to 128: 437 kept, 0 not" in drawn

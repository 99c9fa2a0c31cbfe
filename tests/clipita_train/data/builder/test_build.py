"""A build keeps and drops what it should, says so, and comes out the same whatever is killed while it runs."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from clipita_train.cli import main
from clipita_train.data.builder.build import build
from clipita_train.data.builder.recipe import DataRecipe, Rules, Source
from clipita_train.data.builder.runners import LocalRunner, WorkerError
from clipita_train.data.pairs.fetch import Settings
from clipita_train.data.pairs.rows import Tally
from clipita_train.data.pairs.tables import web_dataset
from clipita_train.data.shards import ShardReader
from clipita_train.engine.files import PARTIAL
from PIL import Image
from support import TESTS
from support.sources_of_photographs import CAPTIONS, RECIPE, jpeg, picture, write_sources
from support.web_stand_in import Web, answer

pytestmark = pytest.mark.slow

SCRIPT = """
import sys
from pathlib import Path
from support.sources_of_photographs import RECIPE
from clipita_train.data.builder.build import build
from clipita_train.data.builder.runners import LocalRunner

if __name__ == "__main__":
    with LocalRunner(1) as runner:
        build(RECIPE, Path(sys.argv[1]), Path(sys.argv[2]), runner)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    write_sources(folder)
    return folder


@pytest.fixture(scope="module")
def runner() -> Any:
    with LocalRunner(2) as pool:
        yield pool


@pytest.fixture(scope="module")
def built(root: Path, runner: LocalRunner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "data"
    build(replace(RECIPE, web_dataset=True), root, out, runner, show_progress=False)
    return out


def hashes(out: Path) -> dict[str, str]:
    """Of everything but what is only for the next run."""
    files = [path for path in out.rglob("*") if path.is_file() and "work" not in path.relative_to(out).parts]
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def manifest(out: Path) -> dict[str, dict[str, Any]]:
    return {f"{row['source']}/{row['key']}": row for row in pq.read_table(out / "manifest.parquet").to_pylist()}


def test_every_row_is_in_the_manifest_with_its_reason(built: Path) -> None:
    rows = manifest(built)
    assert {key: row["reason"] for key, row in rows.items()} == {
        "righe/a.jsonl:1": "",
        "righe/a.jsonl:2": "",
        "righe/a.jsonl:3": "an evaluation set has the photograph",
        "righe/a.jsonl:4": "",
        "righe/a.jsonl:5": "no caption is left",
        "righe/a.jsonl:6": "the photograph cannot be read",
        "righe/a.jsonl:7": "the photograph cannot be read",
        "righe/a.jsonl:8": "the photograph is too narrow",
        "righe/a.jsonl:9": "the photograph is too small",
        "righe/a.jsonl:11": "the same photograph",
        "cartella/0.png": "",
        "cartella/1.png": "",
        "cartella/2.png": "",
        "cartella/astronauta.jpg": "a copy of the photograph",
        "cartella/inglese.jpg": "no caption is left",
        "tar/a.tar:chelsea": "",
        "tar/a.tar:coffee": "the same photograph",
    }
    assert {key: row["copy_of"] for key, row in rows.items() if row["copy_of"]} == {
        "righe/a.jsonl:11": "righe/a.jsonl:2",
        "tar/a.tar:coffee": "righe/a.jsonl:2",
        "cartella/astronauta.jpg": "righe/a.jsonl:1",
    }
    assert "truncated" in rows["righe/a.jsonl:6"]["problem"]
    assert rows["righe/a.jsonl:2"]["caption_reasons"] == ["", "the name of a file"]
    assert rows["righe/a.jsonl:5"]["caption_reasons"] == ["an evaluation set has the caption"]
    assert rows["cartella/inglese.jpg"]["caption_reasons"] == ["another language"]
    assert rows["cartella/2.png"]["caption_reasons"] == ["a caption of many photographs", ""]
    row = rows["cartella/astronauta.jpg"]
    assert (row["licence"], row["width"], row["height"], row["problem"]) == ("CC BY 4.0", 100, 100, None)


def test_shards_hold_the_kept_rows_with_the_captions_that_are_kept(built: Path, root: Path) -> None:
    rows = manifest(built)
    kept = {key: row for key, row in rows.items() if not row["reason"]}
    found = {}
    for split in ("train", "validation"):
        reader = ShardReader(built / split)
        assert len(reader) > 0
        for number, record in enumerate(reader):
            assert (rows[record.id]["split"], rows[record.id]["record"]) == (split, number)
            assert hashlib.sha256(record.image).hexdigest() == rows[record.id]["sha256"]
            found[record.id] = record
    assert found.keys() == kept.keys()
    assert found["righe/a.jsonl:2"].captions == (CAPTIONS["coffee"][0],)
    assert found["righe/a.jsonl:2"].image == (root / "righe" / "coffee.jpg").read_bytes()
    assert found["tar/a.tar:chelsea"].image == jpeg(picture("chelsea"))


def test_a_web_dataset_says_the_same(built: Path) -> None:
    for split in ("train", "validation"):
        tally, paths = Tally(), sorted((built / split).glob("*.tar"))
        rows = [row for path in paths for row in tally.good(web_dataset(path, source="x", licence=""))]
        assert tally.bad.total() == 0
        assert [(row.image, row.captions) for row in rows] == [record[1:] for record in ShardReader(built / split)]


def test_the_summary_counts_every_row_once(built: Path) -> None:
    told = json.loads((built / "build.json").read_text())
    rows = manifest(built)
    for name in ("righe", "cartella", "tar"):
        found = told["sources"][name]
        assert found["rows"] == sum(row["source"] == name for row in rows.values())
        assert found["rows"] == sum(found["dropped"].values()) + found["train"] + found["validation"]
    assert told["sources"]["righe"]["bad"] == {
        "the image is missing": {"count": 1, "places": ["a.jsonl:10"]},
        "not a JSON object with image_path and captions": {"count": 1, "places": ["a.jsonl:12"]},
    }
    assert told["build"] == pq.read_schema(built / "manifest.parquet").metadata[b"clipita.build"].decode()


def test_the_split_is_by_photograph_and_not_by_the_order_or_the_number_of_rows(
    built: Path, root: Path, runner: LocalRunner, tmp_path: Path
) -> None:
    few = replace(RECIPE, sources=RECIPE.sources[:0:-1], evaluation=(), chunk_rows=100)
    build(few, root, tmp_path, runner, show_progress=False)
    both = {row["sha256"]: row["split"] for row in manifest(built).values() if row["split"]}
    alone = {row["sha256"]: row["split"] for row in manifest(tmp_path).values() if row["split"]}
    assert len(both.keys() & alone.keys()) >= 4
    assert all(both[key] == alone[key] for key in both.keys() & alone.keys())


def test_again_nothing_is_computed_and_after_a_change_only_what_depends_on_it(
    root: Path, runner: LocalRunner, tmp_path: Path
) -> None:
    def ages() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in (tmp_path / "work").glob("*.parquet")}

    build(RECIPE, root, tmp_path, runner, show_progress=False)
    first, before = hashes(tmp_path), ages()
    build(RECIPE, root, tmp_path, runner, show_progress=False)
    assert (hashes(tmp_path), ages()) == (first, before)

    strict = tuple(replace(source, rules=replace(source.rules, min_side=120)) for source in RECIPE.sources)
    build(replace(RECIPE, sources=strict), root, tmp_path, runner, show_progress=False)
    new = {name.partition("-")[0] for name in ages().keys() - before.keys()}
    assert new == {"judge", "compare"}
    assert hashes(tmp_path) != first
    build(RECIPE, root, tmp_path, runner, show_progress=False)
    assert hashes(tmp_path) == first


def test_a_photograph_that_was_missing_and_has_come_is_found(runner: LocalRunner, tmp_path: Path) -> None:
    write_sources(tmp_path / "sources")
    told = build(RECIPE, tmp_path / "sources", tmp_path / "out", runner, show_progress=False)
    assert (told["sources"]["righe"]["rows"], "righe/a.jsonl:10" in manifest(tmp_path / "out")) == (10, False)
    (tmp_path / "sources" / "righe" / "gone.jpg").write_bytes(jpeg(picture("page")))
    told = build(RECIPE, tmp_path / "sources", tmp_path / "out", runner, show_progress=False)
    assert told["sources"]["righe"]["rows"] == 11
    assert manifest(tmp_path / "out")["righe/a.jsonl:10"]["reason"] == ""


def test_a_photograph_that_is_replaced_is_looked_at_again(runner: LocalRunner, tmp_path: Path) -> None:
    write_sources(tmp_path / "sources")
    path, out = tmp_path / "sources" / "righe" / "camera.jpg", tmp_path / "out"
    build(RECIPE, tmp_path / "sources", out, runner, show_progress=False)
    path.write_bytes(jpeg(picture("camera").transpose(1)))
    build(RECIPE, tmp_path / "sources", out, runner, show_progress=False)
    assert manifest(out)["righe/a.jsonl:4"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    path.unlink()
    told = build(RECIPE, tmp_path / "sources", out, runner, show_progress=False)
    assert "righe/a.jsonl:4" not in manifest(out)
    assert told["sources"]["righe"]["bad"]["the image is missing"]["places"] == ["a.jsonl:4", "a.jsonl:10"]


STEPS = ("rows", "text", "images", "signatures", "judge", "compare", "shard")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL on this system")
def test_killed_in_each_step_it_goes_on_to_the_same_result(root: Path, runner: LocalRunner, tmp_path: Path) -> None:
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(SCRIPT)
    path = [str(TESTS), *sys.path]

    def start() -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
        return subprocess.Popen([sys.executable, script, root, out], env=environment, start_new_session=True)

    for step in STEPS:
        process = start()
        while not any(path.name.lstrip(".").startswith(f"{step}-") for path in out.rglob("*-*")):
            assert process.poll() is None, step
            time.sleep(0.001)
        process.kill()
        assert process.wait() == -signal.SIGKILL, step
        _wait_until_all_have_ended(process.pid)
    assert not (out / "build.json").exists()
    assert start().wait() == 0
    build(RECIPE, root, tmp_path / "never killed", runner, show_progress=False)
    assert hashes(out) == hashes(tmp_path / "never killed")
    assert not list(out.rglob(f"*{PARTIAL}"))


def _wait_until_all_have_ended(session: int) -> None:
    """Fails if a worker lives on without the process that it worked for."""
    for _ in range(600):
        try:
            os.killpg(session, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("a worker is still there 30 seconds after its parent was killed")


@dataclass(frozen=True)
class Dies:
    output: Path

    def run(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_is_told(tmp_path: Path) -> None:
    with LocalRunner(1) as pool, pytest.raises(WorkerError, match=r"was ended from outside.*run the same command"):
        list(pool.run([Dies(tmp_path / "never")]))


def test_two_builds_do_not_work_in_one_folder(root: Path, runner: LocalRunner, tmp_path: Path) -> None:
    from filelock import FileLock

    (tmp_path / "work").mkdir()
    with (
        FileLock(tmp_path / "work" / ".lock"),
        pytest.raises(ValueError, match="another build works in"),
    ):
        build(RECIPE, root, tmp_path, runner, show_progress=False)


def test_the_command_takes_a_recipe_of_ones_own_and_changes_to_it(root: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mia.py"
    recipe.write_text(
        "from clipita_train.data.builder.recipe import DataRecipe, Source\n"
        "RECIPE = DataRecipe('mia', (Source('tar', 'web_dataset', ('tar/a.tar',), licence='CC0'),))\n"
    )
    arguments = ["data", "build", str(recipe), "--root", str(root), "--out", str(tmp_path / "out"), "--workers", "1"]
    result = CliRunner().invoke(main, [*arguments, "--set", "sources.0.rules.min_side=120"])
    assert result.exit_code == 0, result.output
    assert "tar: 2 rows read, 0 bad" in result.output
    assert "the photograph is too small" in result.output
    result = CliRunner().invoke(main, [*arguments, "--set", "sources.0.rules.min_sides=120"])
    assert result.exit_code == 1
    assert "did you mean 'min_side'?" in result.output
    result = CliRunner().invoke(main, ["data", "build", "nessuna", *arguments[3:]])
    assert "'nessuna' is no recipe and no .py file; there are: clip_italian" in result.output
    recipe.write_text("RECIPE = 1")
    assert "has no DataRecipe called RECIPE" in CliRunner().invoke(main, arguments).output
    result = CliRunner().invoke(main, ["data", "build", "clip_italian", *arguments[3:]])
    assert result.exit_code == 1
    assert "'mscoco_it' has no file" in result.output


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DataRecipe("x", ()), "sources must be at least one"),
        (lambda: DataRecipe("x", (RECIPE.sources[0],) * 2), "names must be different from one another"),
        (lambda: replace(RECIPE, near_share=0.5), "near_share must be from 0.7, below which pairs are missed"),
        (lambda: Source("a", "table", ("a.csv",)), "licence must be given for the reader table"),
        (lambda: Source("a/b", "wit", ("a",)), "name must be a name without a slash"),
        (lambda: Rules(copies=0), "copies must be None or >= 1"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_photographs_with_addresses_are_downloaded_and_the_others_are_counted(
    runner: LocalRunner, tmp_path: Path
) -> None:
    web, good = Web(), jpeg(picture("chelsea").resize((600, 400)))
    web.pages |= {"/gatto.jpg": answer(good), "/testo.jpg": answer(b"<html>"), "/dopo.jpg": [answer(status=503)]}
    names = ("gatto.jpg", "testo.jpg", "manca.jpg", "dopo.jpg")
    rows = [f"Un gatto tigrato, foto di {name[:-4]}\t{web.address(f'/{name}')}" for name in names]
    (tmp_path / "cc.tsv").write_text("\n".join(rows))
    source = Source("cc", "conceptual_3m", ("cc.tsv",), rules=Rules(other_language=None))
    recipe, out = DataRecipe("scaricate", (source,), validation_share=0.0, max_side=300), tmp_path / "out"
    quick = {"contact": "somebody@example.org", "allowed": ("127.0.0.0/8",), "rate": 1000.0, "back_off": 0.01}
    settings = Settings(**quick, max_side=300, attempts=1)
    told = build(recipe, tmp_path, out, runner, show_progress=False)
    assert told["sources"]["cc"]["dropped"] == {"download: no download": 4}
    told = build(recipe, tmp_path, out, runner, downloads=settings, show_progress=False)
    reasons = [row["reason"] for row in manifest(out).values()]
    assert reasons == ["", "download: not_image", "download: http_404", "download: http_503"]
    assert told["sources"]["cc"]["train"] == 1
    record = ShardReader(out / "train")[0]
    assert (record.id, record.captions) == ("cc/cc.tsv:1", ("Un gatto tigrato, foto di gatto",))
    with Image.open(io.BytesIO(record.image)) as image:
        assert image.size == (300, 200)

    web.pages["/dopo.jpg"] = answer(jpeg(picture("coffee")))
    asked = len(web.requests)
    told = build(recipe, tmp_path, out, runner, downloads=settings, show_progress=False)
    assert told["sources"]["cc"]["train"] == 2
    assert web.paths()[asked:] == ["/dopo.jpg"]
    web.close()


def test_of_files_of_one_name_in_two_folders_rows_with_the_same_key_are_dropped(
    runner: LocalRunner, tmp_path: Path
) -> None:
    for folder, name in (("a", "chelsea"), ("b", "coffee")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "foto.jpg").write_bytes(jpeg(picture(name)))
        (tmp_path / folder / "foto.txt").write_text(CAPTIONS[name][0])
    recipe = DataRecipe("x", (Source("x", "sidecars", ("a", "b"), licence="CC0"),), validation_share=0.0)
    told = build(recipe, tmp_path, tmp_path / "out", runner, show_progress=False)
    assert told["sources"]["x"]["dropped"] == {"the same key": 1}
    assert [record.captions for record in ShardReader(tmp_path / "out" / "train")] == [(CAPTIONS["chelsea"][0],)]

"""The commands `index`, `search` and `duplicates`, as users and scripts see them."""

import base64
import contextlib
import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image
from support import PHOTOS

from clipita.cli.main import main

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples' photographs with an index by the embedded model; not to be changed."""
    folder = tmp_path_factory.mktemp("archivio") / "foto"
    shutil.copytree(PHOTOS, folder)
    (folder / "mare").mkdir()
    (folder / "razzo.jpg").rename(folder / "mare" / "razzo.jpg")
    assert CliRunner().invoke(main, ["index", str(folder)]).exit_code == 0
    return folder


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.delenv("CLIPITA_MODEL", raising=False)

    def ask(*arguments: object) -> Result:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return ask


def test_index_says_what_it_did_and_what_it_left_aside(run: Run, photos: Path) -> None:
    (photos / "bozza.psd").write_bytes(b"")
    first = run("index", photos)
    assert first.exit_code == 0
    assert first.stdout == f"{photos}/.clipita: 3 added; 3 embedded\n"
    assert "1 in a format that is not read (.psd): export as JPEG or PNG" in first.stderr
    (photos / "bozza.psd").unlink()
    again = run("index", photos)
    assert again.stdout == f"{photos}/.clipita: 3 unchanged; 0 embedded\n"
    assert ".clipita" not in again.stderr  # the index itself is not counted among what was left aside


def test_index_for_scripts(run: Run, photos: Path) -> None:
    (photos / "rotta.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    result = run("index", photos, "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    counts = {name: told[name] for name in ("added", "changed", "moved", "removed", "unchanged", "failed", "embedded")}
    assert counts == {
        "added": 3, "changed": 0, "moved": 0, "removed": 0, "unchanged": 0, "failed": 1, "embedded": 3,
    }  # fmt: skip
    (failure,) = told["failures"]
    assert failure["path"] == "rotta.png"
    assert failure["error"].startswith("is damaged or incomplete")
    (photos / "a.JPG").rename(photos / "z.jpg")
    told = json.loads(run("index", photos, "--json").stdout)
    assert (told["moved"], told["unchanged"], told["failed"], told["embedded"]) == (1, 2, 1, 0)


def test_index_excludes_and_remembers_it(run: Run, photos: Path) -> None:
    result = run("index", photos, "-x", "mare", "--index", photos.parent / "indice")
    assert "2 added" in result.stdout
    assert "1 excluded as asked (mare)" in result.stderr
    assert "2 unchanged" in run("index", photos, "--index", photos.parent / "indice").stdout
    assert "1 added, 2 unchanged" in run("index", photos, "--index", photos.parent / "indice", "-x", "").stdout


def test_search_finds_by_a_sentence(ask: Run, indexed: Path) -> None:
    result = ask("search", "un gatto", "--in", indexed, "-n", 2)
    assert result.exit_code == 0
    first, second = result.stdout.splitlines()
    assert re.fullmatch(r" 0\.\d{3}  gatto\.jpg", first)
    assert first > second


def test_search_for_scripts(ask: Run, indexed: Path) -> None:
    told = json.loads(ask("search", "un razzo", "--in", indexed, "-n", 1, "--json").stdout)
    assert set(told) == {"query", "found", "results"}
    assert (told["query"], told["found"]) == ("un razzo", True)
    (best,) = told["results"]
    assert best["path"] == "mare/razzo.jpg"
    assert 0.3 < best["score"] < 1
    assert (best["copies"], best["taken"]) == ([], None)
    with Image.open(indexed / "mare/razzo.jpg") as picture:
        assert (best["width"], best["height"]) == picture.size


def test_nothing_found_is_said_and_has_a_status_of_its_own(ask: Run, indexed: Path) -> None:
    nothing = ask("search", "il fondo del mare", "--in", indexed)
    assert nothing.exit_code == 1
    assert nothing.stdout == ""
    assert nothing.stderr.startswith("Found nothing in the archive")
    for_scripts = ask("search", "il fondo del mare", "--in", indexed, "--json")
    assert for_scripts.exit_code == 1
    assert json.loads(for_scripts.stdout) == {"query": "il fondo del mare", "found": False, "results": []}
    nearest = ask("search", "il fondo del mare", "--in", indexed, "--all", "-n", 3)
    assert nearest.exit_code == 1
    assert len(nearest.stdout.splitlines()) == 3


def test_search_by_a_photograph_with_more_and_less(ask: Run, indexed: Path) -> None:
    photo = indexed / "gatto.jpg"
    assert ask("search", photo, "--in", indexed, "-n", 1).stdout == " 1.000  gatto.jpg\n"
    away = ask("search", photo, "--in", indexed, "-n", 1, "--less", f"5:{photo}").stdout
    assert "gatto.jpg" not in away
    both = ask("search", "un gatto", "--in", indexed, "-n", 2, "--more", "una tazza di caffè").stdout
    assert "gatto.jpg" in both
    assert "caffe.jpg" in both


def test_a_folder_inside_the_archive_asks_for_what_is_in_it(
    ask: Run, indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [line.split()[1] for line in ask("search", "un razzo", "--in", indexed / "mare").stdout.splitlines()] == [
        "mare/razzo.jpg"
    ]
    monkeypatch.chdir(indexed / "mare")
    assert len(ask("search", "un razzo", "--all").stdout.splitlines()) == 1
    assert len(ask("search", "un razzo", "--all", "--in", indexed, "--below", "mare").stdout.splitlines()) == 1
    monkeypatch.chdir(indexed)
    assert len(ask("search", "un razzo", "--all").stdout.splitlines()) == 4


def test_paths_of_any_bytes_come_out_whole(ask: Run, run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "foto"
    folder.mkdir()
    names = [b"citt\xe0.jpg", "città.jpg".encode(), b"a\nb.jpg"]
    for number, name in enumerate(names):
        Image.new("RGB", (20 + number, 20), (90 * number, 40, 10)).save(folder / "x.jpg")
        (folder / "x.jpg").rename(folder / os.fsdecode(name))
    assert run("index", folder).exit_code == 0
    result = run("search", "mare", "--in", folder, "--all", "-0")
    found = result.stdout_bytes.removesuffix(b"\0").split(b"\0")
    assert sorted(found) == sorted(os.fsencode(folder) + b"/" + name for name in names)
    assert all(os.path.exists(path) for path in found)
    shown = run("search", "mare", "--in", folder, "--all").stdout
    assert r"a\nb.jpg" in shown
    told = json.loads(run("search", "mare", "--in", folder, "--all", "--json").stdout)
    assert sorted(os.fsencode(each["path"]) for each in told["results"]) == sorted(names)
    copies = tmp_path / "copie"
    assert run("search", "mare", "--in", folder, "--all", "--copy-to", copies).exit_code == 0
    assert sorted(os.fsencode(path.name) for path in copies.iterdir()) == sorted(names)


def test_copies_of_one_name_are_all_kept(run: Run, tmp_path: Path) -> None:
    for number in range(3):
        folder = tmp_path / "foto" / str(number)
        folder.mkdir(parents=True)
        Image.new("RGB", (20, 20), (80 * number, 30, 200)).save(folder / "IMG_1.jpg")
    run("index", tmp_path / "foto")
    run("search", "mare", "--in", tmp_path / "foto", "--all", "--copy-to", tmp_path / "copie")
    assert sorted(path.name for path in (tmp_path / "copie").iterdir()) == ["IMG_1-2.jpg", "IMG_1-3.jpg", "IMG_1.jpg"]


def test_the_contact_sheet_needs_nothing_else_and_runs_nothing(ask: Run, run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "foto"
    shutil.copytree(PHOTOS, folder)
    (folder / "gatto.jpg").rename(folder / "<script>alert(1)<script>.jpg")
    ask("index", folder)
    sheet = tmp_path / "gatti.html"
    assert ask("search", "un gatto & un <cane>", "--in", folder, "--all", "--html", sheet).exit_code in (0, 1)
    page = sheet.read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 4
    assert "<script" not in page
    assert "un gatto &amp; un &lt;cane&gt;" in page
    assert re.findall(r'(?:src|href)="(?!data:image/jpeg;base64,|file:///)', page) == []
    assert "http" not in re.sub(r"http-equiv", "", page)


@pytest.mark.slow
def test_photographs_are_shown_where_a_terminal_can(indexed: Path) -> None:
    code = "from clipita.cli.main import main; main()"
    command = [sys.executable, "-c", code, "search", "un gatto", "--in", str(indexed), "-n", "1", "--preview"]
    plain = {name: value for name, value in os.environ.items() if name not in ("TERM", "TERM_PROGRAM")}

    def printed(**terminal: str) -> bytes:
        main_end, other_end = pty.openpty()
        with subprocess.Popen(command, stdout=other_end, stderr=subprocess.STDOUT, env=plain | terminal) as process:
            os.close(other_end)
            parts = []
            with contextlib.suppress(OSError):  # Linux says so at the end
                while part := os.read(main_end, 65536):
                    parts.append(part)
            process.wait()
        os.close(main_end)
        return b"".join(parts)

    kitty = b"".join(re.findall(rb"\x1b_G[^;]*;([^\x1b]*)\x1b", printed(TERM="xterm-kitty")))
    iterm = re.search(rb"\x1b\]1337;File=[^:]*:([^\x07]*)\x07", printed(TERM_PROGRAM="iTerm.app"))
    assert iterm is not None
    for kind, data in {"PNG": kitty, "JPEG": iterm[1]}.items():
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as picture:
            assert picture.format == kind
            assert max(picture.size) == 320
    assert b"this terminal shows no pictures" in printed(TERM="dumb")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mare", "--since", "ieri"), "'ieri' is no date such as 2023-08-14, 2023-08 or 2023"),
        (("manca.jpg",), "'manca.jpg' is called like a photograph, and there is no such file."),
        (("mare", "--in", "/"), "there is no index in '/' or above it. Make one first: clipita index '/'"),
        (("  ",), "there is nothing to read in it"),
        (("mare", "-n", "0"), "0 is not in the range x>=1"),
    ],
)
def test_what_cannot_be_asked_is_refused(ask: Run, indexed: Path, arguments: tuple[str, ...], message: str) -> None:
    where = () if "--in" in arguments else ("--in", indexed)
    result = ask("search", *arguments, *where)
    assert result.exit_code == 2
    assert message in re.sub(r"\s+", " ", result.stderr)


@pytest.mark.parametrize(
    ("since", "until", "found"),
    [
        ("2019", "2019", ["ago.jpg", "dic.jpg"]),
        ("2019-12", None, ["dic.jpg", "gen.jpg"]),
        (None, "2019-08-13", []),
        ("2019-08-14", "2019-08", ["ago.jpg"]),
    ],
)
def test_dates(run: Run, tmp_path: Path, since: str | None, until: str | None, found: list[str]) -> None:
    folder = tmp_path / "foto"
    folder.mkdir()
    dates = {"ago": "2019:08:14 10:00:00", "dic": "2019:12:31 23:59:59", "gen": "2020:01:01 00:00:00", "mai": None}
    for number, (name, date) in enumerate(dates.items()):
        exif = Image.Exif()
        if date is not None:
            exif.get_ifd(0x8769)[36867] = date
        Image.new("RGB", (20 + number, 20), (60 * number, 40, 10)).save(folder / f"{name}.jpg", exif=exif)
    run("index", folder)
    options: list[Any] = [part for name, day in (("--since", since), ("--until", until)) if day for part in (name, day)]
    told = json.loads(run("search", "mare", "--in", folder, "--all", "--json", *options).stdout)
    assert sorted(each["path"] for each in told["results"]) == found


def test_duplicates_are_listed(run: Run, photos: Path) -> None:
    shutil.copy(photos / "b.png", photos / "mare" / "copia.png")
    run("index", photos)
    assert run("duplicates", "--in", photos).stdout == "b.png\n    mare/copia.png\n"
    told = json.loads(run("duplicates", "--in", photos, "--json").stdout)
    assert told == {"groups": [{"paths": ["b.png", "mare/copia.png"], "same_bytes": True}]}


@pytest.mark.slow
def test_interrupted_it_keeps_what_is_done(tmp_path: Path) -> None:
    folder = tmp_path / "foto"
    folder.mkdir()
    for number in range(300):
        Image.new("RGB", (400, 300), (number % 256, number // 2, 90)).save(folder / f"{number}.jpg")
    command = [sys.executable, "-c", "from clipita.cli.main import main; main()", "index", str(folder), "-b", "4"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (folder / ".clipita" / "index.sqlite").exists():
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM, told
    assert "Give the same command again to go on." in told
    counts = json.loads(CliRunner().invoke(main, ["index", str(folder), "--json"]).stdout)
    assert counts["added"] + counts["unchanged"] == 300
    assert counts["embedded"] < 300

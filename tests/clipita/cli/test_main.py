"""The command, as a user and as a machine see it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.tiny_bundle import tiny_config, tiny_files

import clipita
from clipita.bundles.bundle import write_bundle
from clipita.cli.main import main


def test_zero_shot_prints_labels_best_first(run: Any, shared_bundle: Path, photos: Path) -> None:
    image = photos / "b.png"
    expected = clipita.load(shared_bundle).zero_shot(image, ["cane", "gatto", "mare"])
    result = run("zero-shot", image, "cane", "gatto", "mare")
    assert result.exit_code == 0
    assert result.output == "".join(f"{score:6.1%}  {label}\n" for label, score in expected)

    result = run("zero-shot", image, "cane", "gatto", "mare", "--json", "--top-k", 2, "-t", "{}", "-t", "un {} blu")
    found = json.loads(result.stdout)
    scores = clipita.load(shared_bundle).zero_shot(image, ["cane", "gatto", "mare"], templates=["{}", "un {} blu"])
    assert found == {
        "image": str(image),
        "scores": [{"label": label, "score": score} for label, score in scores[:2]],
        "model": "tiny",
        "fingerprint": clipita.load(shared_bundle).fingerprint,
    }

    model = clipita.load(shared_bundle)
    cosines = model.label_bank(["cane", "mare"]).embeddings @ model.encode_image(image)
    between = float(cosines.mean())
    (fitting,) = [label for label, cosine in zip(["cane", "mare"], cosines, strict=True) if cosine > between]
    result = run("zero-shot", image, "cane", "mare", "--json", "--min-cosine", between)
    assert [found["label"] for found in json.loads(result.stdout)["scores"]] == [fitting]
    result = run("zero-shot", image, "cane", "mare", "--min-cosine", 1)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "None of the labels fits.\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["assente.jpg", "cane", "gatto"], "Error: 'assente.jpg' does not exist"),
        (["{foto}/note.txt", "cane", "gatto"], "is no image in a known format"),
        (["{foto}", "cane"], "is a folder, expected an image file"),
        (["https://example.com/a.jpg", "cane"], "is a URL, and clipita opens no connection for images"),
        (["{foto}/b.png", "cane", "cane"], "Error: labels[0] and labels[1] are both 'cane'"),
        (["{foto}/b.png", "cane", ""], "Error: labels[1] is '': there is nothing to read"),
        (["{foto}/b.png", "cane", "ga\udce8tto"], "Error: labels[1] holds the lone surrogate"),
        (["{foto}/b.png", "cane", "-t", "una foto"], "Error: templates[0] must have one {} "),
        (["{foto}/b.png"], "Error: Missing argument 'LABELS...'"),
        (["{foto}/b.png", "{foto}/a.JPG", "cane"], "a.JPG' is named like an image, but stands among the labels"),
        (["{foto}/b.png", "assente.jpeg", "cane"], "'assente.jpeg' is named like an image, but stands among"),
        (["-topo.jpg", "cane", "gatto"], "'-topo.jpg' begins with '-' and is read as options. Write './-topo.jpg', or"),
        (["-", "cane", "gatto"], "'-' is the image from standard input, and nothing comes from there: add < foto.jpg"),
        (["{foto}/b.png", "cane", "-\x1b[31m"], "Error: No such option '-\\x1b'"),
        (["\x1b[31m.png", "cane", "gatto"], "Error: '\\x1b[31m.png' does not exist"),
        (["{foto}/b.png", "cane", "-k", "0"], "Error: Invalid value for '--top-k'"),
        (["{foto}/b.png", "cane", "--min-cosine", "2"], "Error: Invalid value for '--min-cosine'"),
        (["{foto}/b.png", "cane", "--min-cosine", "nan"], "nan is not a cosine, from -1 to 1"),
        (["{foto}/b.png", "cane", "-m", "clipita-maxi"], "Error: there is no model 'clipita-maxi'"),
        (["{foto}/b.png", "cane", "-m", "{foto}"], "is of no layout that clipita reads"),
    ],
)
def test_what_zero_shot_refuses_is_one_line(run: Any, photos: Path, arguments: list[str], message: str) -> None:
    result = run("zero-shot", "--json", *(argument.replace("{foto}", str(photos)) for argument in arguments))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: ")


def test_a_cut_text_is_a_warning_without_code(run: Any, photos: Path) -> None:
    result = run("zero-shot", photos / "b.png", "mare " * 30, "cane", "--json")
    assert result.exit_code == 0
    assert result.stderr.startswith("Warning: 1 of 2 texts are longer than 12 tokens")
    json.loads(result.stdout)


def warnings_of(result: Result) -> list[str]:
    return [line for line in result.stderr.splitlines() if line.startswith("Warning: ")]


def test_several_images_take_their_labels_as_options(run: Any, shared_bundle: Path, photos: Path) -> None:
    images = [photos / "b.png", photos / "a.JPG"]
    one, other = clipita.load(shared_bundle).zero_shot(images, ["cane", "gatto"])

    def lines(scores: list[clipita.LabelScore]) -> str:
        return "".join(f"{score:6.1%}  {label}\n" for label, score in scores)

    result = run("zero-shot", *images, "-l", "cane", "-l", "gatto")
    assert (result.exit_code, result.output) == (0, f"{images[0]}:\n{lines(one)}{images[1]}:\n{lines(other)}")

    (photos / "vuota.jpg").write_bytes(b"")
    result = run("zero-shot", images[0], photos / "vuota.jpg", images[1], "-l", "cane", "-l", "gatto", "--json")
    assert result.exit_code == 1
    fields = json.loads(result.stdout)
    assert [found["image"] for found in fields["images"]] == [str(image) for image in images]
    for found, expected in zip(fields["images"], (one, other), strict=True):
        assert [score["label"] for score in found["scores"]] == [label for label, _ in expected]
        assert [score["score"] for score in found["scores"]] == pytest.approx(
            [score for _, score in expected], abs=1e-5
        )
    assert [failure["image"] for failure in fields["failed"]] == [str(photos / "vuota.jpg")]
    assert "vuota.jpg' is empty (0 bytes)" in result.stderr
    assert run("zero-shot", photos / "vuota.jpg", "-l", "cane", "-l", "gatto").exit_code == 2


def test_what_the_refusals_advise_works(
    run: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(photos / "b.png", "-topo.png")
    expected = run("zero-shot", photos / "b.png", "cane", "gatto").output
    assert run("zero-shot", "-topo.png", "cane", "gatto").exit_code == 2
    for words in (("./-topo.png", "cane", "gatto"), ("--", "-topo.png", "cane", "gatto")):
        assert run("zero-shot", *words).output == expected
    assert run("zero-shot", "-", "cane", "gatto", stdin=(photos / "b.png").read_bytes()).output == expected
    assert run("embed", "-foto", "-o", "x.npz").exit_code == 2
    photos.rename("-foto")
    refused = run("embed", "-foto", "-o", "x.npz")
    assert "'-foto' begins with '-' and is read as options. Write './-foto', or put --" in refused.stderr
    assert run("embed", "./-foto", "-o", "-x.npz").exit_code == 0
    assert run("embed", "./-foto", "-o", "-x.npz").exit_code == 0  # what an option asks for is no mistake


@pytest.mark.parametrize(
    ("labels", "warns"),
    [
        (["gatto,cane"], "the labels have commas in them: 'gatto,cane'. Labels are separated by spaces"),
        (["gatto,", "cane,", "mare"], "the labels have commas in them: 'gatto,', 'cane,', 'mare'. Labels are"),
        (["gatto"], "one label alone always has 100 %, whatever the image shows"),
        (["gatto", "--min-cosine", "0.1"], None),
        (["un gatto nero, piccolo", "un cane"], None),
        (["gatto", "cane"], None),
    ],
)
def test_labels_that_are_likely_a_mistake_are_warned_of(
    run: Any, photos: Path, labels: list[str], warns: str | None
) -> None:
    result = run("zero-shot", photos / "b.png", *labels)
    assert result.exit_code == 0
    warnings = warnings_of(result)
    assert len(warnings) == (warns is not None)
    assert all(warning.startswith(f"Warning: {warns}") for warning in warnings)


def test_one_label_is_a_question_for_a_model_that_judges_each_by_itself(run: Any, photos: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "sigmoide", config=tiny_config(logit_bias=-3.0), files=tiny_files())
    result = run("zero-shot", photos / "b.png", "gatto", "-m", tmp_path / "sigmoide")
    assert (result.exit_code, result.stderr) == (0, "")


def in_process(bundle: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", "from clipita.cli.main import main; main()", *map(str, arguments)]
    settings = {**os.environ, "CLIPITA_MODEL": str(bundle), **environment}
    return subprocess.run(command, capture_output=True, env=settings, check=False)


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("cp1252", "caffè \\U0001f431".encode("cp1252")), ("utf-8", "caffè 🐱".encode())],
)
def test_a_pipe_that_is_not_utf8_gets_what_it_can_show(
    shared_bundle: Path, photos: Path, tmp_path: Path, encoding: str, shown: bytes
) -> None:
    done = in_process(shared_bundle, "zero-shot", photos / "b.png", "caffè 🐱", "cane", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert shown in done.stdout
    output = tmp_path / "Łódź 🐱.npz"
    done = in_process(shared_bundle, "embed", photos, "-o", output, PYTHONIOENCODING=encoding)
    assert done.returncode == 0
    assert b": 3 images, 3 of them new; 0 failed" in done.stdout
    assert output.exists()


def test_ascii_is_no_reason_to_fail(shared_bundle: Path, photos: Path) -> None:
    posix = {"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii"}
    done = in_process(shared_bundle, "embed", photos, "-o", photos.parent / "x.npz", **posix)
    assert (done.returncode, done.stdout.endswith(b"3 images, 3 of them new; 0 failed\n")) == (0, True)


def test_no_name_and_no_label_reaches_a_terminal_as_a_command(run: Any, photos: Path, tmp_path: Path) -> None:
    evil = "\x1b]0;titolo\x07\x9b31m\u202egpj"
    result = run("zero-shot", photos / "b.png", f"gatto{evil}", "cane")
    assert "gatto\\x1b]0;titolo\\x07\\x9b31m\\u202egpj" in result.stdout
    (photos / f"vuota{evil}.jpg").write_bytes(b"")
    (photos / f"{evil}.psd").write_bytes(b"")
    os.mkfifo(photos / f"{evil}.jpg")
    result = run("embed", photos.rename(tmp_path / f"foto{evil}"), "-o", tmp_path / f"x{evil}.npz")
    assert result.exit_code == 1
    assert "vuota\\x1b]0;titolo" in result.stderr
    assert "device (\\x1b]0;titolo" in result.stderr
    for text in (result.stdout, result.stderr):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)


def test_numbers_out_of_all_bounds(run: Any, photos: Path, tmp_path: Path) -> None:
    huge = "99999999999999999999"
    for size in (huge, "4097"):
        result = run("embed", photos, "-o", tmp_path / "x.npz", "-b", size)
        assert result.exit_code == 2
        assert f"{size} is not in the range 1<=x<=4096" in result.stderr
    assert run("embed", photos, "-o", tmp_path / "x.npz", "-b", 4096).exit_code == 0
    assert run("zero-shot", photos / "b.png", "cane", "gatto", "-k", huge).exit_code == 0


def test_an_empty_variable_is_one_that_is_not_set(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPITA_MODEL", "")
    assert json.loads(run("info", "--json").stdout)["model"] == "clipita-mini"


def test_info(run: Any, shared_bundle: Path) -> None:
    fields = json.loads(run("info", "--json").stdout)
    assert fields["model"] == "tiny"
    assert fields["license"] == "Apache-2.0"
    assert fields["folder"] == str(shared_bundle)
    assert fields["bytes"] == sum(len(content) for content in tiny_files().values())
    assert fields["providers"] == ["CPUExecutionProvider"]
    assert fields["fingerprint"] == clipita.load(shared_bundle).fingerprint
    assert fields["versions"]["clipita"] == clipita.__version__
    text = run("info").stdout
    assert [line.split()[0] for line in text.splitlines()] == [key for key in fields if fields[key] is not None]
    assert "license      Apache-2.0\n" in text


def test_help_and_version(run: Any) -> None:
    assert run("--version").output == f"clipita, version {clipita.__version__}\n"
    for command in ("zero-shot", "embed", "info"):
        assert run(command, "-h").exit_code == 0
    assert run("zero-sot").exit_code == 2


def test_the_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert version("clipita") == clipita.__version__


def test_zero_shot_sees_what_crop_says(run: Any, shared_bundle: Path, photos: Path) -> None:
    from PIL import Image

    wide = photos / "larga.png"
    with Image.open(photos / "b.png") as image:
        image.resize((80, 10)).save(wide)
    model = clipita.load(shared_bundle)
    for crop in ("auto", "center", "tiles"):
        scores = model.zero_shot(wide, ["cane", "gatto"], crop=crop)  # type: ignore[arg-type]
        result = run("zero-shot", wide, "cane", "gatto", "--crop", crop)
        assert result.output == "".join(f"{score:6.1%}  {label}\n" for label, score in scores)
    result = run("zero-shot", wide, "cane", "gatto", "--crop", "whole")
    assert result.exit_code == 2
    assert "'whole' is not one of 'auto', 'center', 'pad', 'tiles'" in result.stderr


@pytest.mark.parametrize("command", sorted(main.commands))
def test_help_shows_its_examples_line_by_line(command: str) -> None:
    told = CliRunner().invoke(main, [command, "--help"])
    assert told.exit_code == 0
    assert "\\b" not in told.output
    shown = [line.strip() for line in told.output.splitlines() if line.strip().startswith("clipita ")]
    assert shown
    assert all(" clipita " not in line for line in shown)


@pytest.mark.parametrize("command", ["", *sorted(main.commands)])
def test_help_reads_well_in_80_columns(command: str) -> None:
    told = CliRunner().invoke(main, [*command.split(), "--help"], terminal_width=80)
    assert max(map(len, told.output.splitlines())) <= 80
    if not command:  # the list of commands, which click cuts off at its width
        assert "..." not in told.output.split("Commands:")[1]

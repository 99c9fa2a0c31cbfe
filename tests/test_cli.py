"""The command, as a user and as a machine see it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import EMBED_DIM, tiny_config, tiny_files
from PIL import Image

import clipita
from clipita import _embed
from clipita.bundle import write_bundle
from clipita.cli import main


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three images, one of them in a folder below, and what is not to be embedded."""
    folder = tmp_path / "foto"
    (folder / "mare").mkdir(parents=True)
    for index, name in enumerate(["b.png", "a.JPG", "mare/città.png"]):
        Image.new("RGB", (20, 10 + index), (80 * index, 30, 200)).save(folder / name)
    (folder / "note.txt").write_text("non una foto")
    (folder / ".nascosta.png").write_bytes(b"")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.png").write_bytes(b"")
    return folder


@pytest.fixture
def run(shared_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("CLIPITA_MODEL", str(shared_bundle))

    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


KEYS = ["a.JPG", "b.png", "mare/città.png"]


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


def read(path: Path) -> tuple[list[str], np.ndarray[Any, Any], str]:
    embeddings = _embed.read_embeddings(path)
    return embeddings.keys, embeddings.vectors, embeddings.fingerprint


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_embed_writes_keys_vectors_and_fingerprint(
    run: Any, shared_bundle: Path, photos: Path, tmp_path: Path, suffix: str
) -> None:
    output = tmp_path / f"foto{suffix}"
    result = run("embed", photos, "-o", output)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{output}: 3 images, 3 of them new; 0 failed\n"
    model = clipita.load(shared_bundle)
    keys, vectors, fingerprint = read(output)
    assert (keys, fingerprint) == (KEYS, model.fingerprint)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, model.encode_image([photos / key for key in keys]), atol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foto", f"foto{suffix}"]


def test_the_files_are_plain_ones(run: Any, photos: Path, tmp_path: Path) -> None:
    import pyarrow.parquet

    run("embed", photos, "-o", tmp_path / "a.npz")
    run("embed", photos, "-o", tmp_path / "a.parquet")
    with np.load(tmp_path / "a.npz") as arrays:
        assert {name: arrays[name].shape for name in arrays} == {
            "keys": (3,),
            "embeddings": (3, EMBED_DIM),
            "fingerprint": (),
            "model": (),
        }
        embeddings = arrays["embeddings"]
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    assert table.column_names == ["key", "embedding"]
    assert table["key"].to_pylist() == KEYS
    np.testing.assert_array_equal(np.array(table["embedding"].to_pylist(), np.float32), embeddings)


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_embed_adds_what_is_new(run: Any, photos: Path, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"foto{suffix}"
    run("embed", photos, "-o", output)
    before = read(output)
    Image.new("RGB", (9, 9)).save(photos / "aa.png")
    result = run("embed", photos, "-o", output, "--json")
    assert result.exit_code == 0
    fields = json.loads(result.stdout)
    assert (fields["images"], fields["new"], fields["failed"]) == (4, 1, [])
    assert read(output)[0] == ["a.JPG", "aa.png", *KEYS[1:]]
    np.testing.assert_array_equal(read(output)[1][[0, 2, 3]], before[1])


def test_bad_images_are_named_counted_and_do_not_stop_the_run(run: Any, photos: Path, tmp_path: Path) -> None:
    (photos / "rotta.png").write_bytes((photos / "b.png").read_bytes()[:45])
    (photos / "vuota.jpg").write_bytes(b"")
    (photos / "verso-il-nulla.png").symlink_to(photos / "assente.png")
    result = run("embed", photos, "-o", tmp_path / "foto.npz", "--json")
    assert result.exit_code == 1
    fields = json.loads(result.stdout)
    assert fields["images"] == 3
    assert [failure["key"] for failure in fields["failed"]] == ["rotta.png", "verso-il-nulla.png", "vuota.jpg"]
    assert fields["failed"][2]["error"].startswith("is empty (0 bytes)")
    assert "vuota.jpg is empty (0 bytes)" in result.stderr
    assert read(tmp_path / "foto.npz")[0] == KEYS

    again = run("embed", photos, "-o", tmp_path / "foto.npz")
    assert again.exit_code == 1
    assert again.stdout.endswith("3 images, 0 of them new; 3 failed\n")


def test_a_folder_of_bad_images_only(run: Any, tmp_path: Path) -> None:
    (tmp_path / "foto").mkdir()
    (tmp_path / "foto" / "vuota.jpg").write_bytes(b"")
    assert run("embed", tmp_path / "foto", "-o", tmp_path / "foto.npz").exit_code == 1
    assert read(tmp_path / "foto.npz")[1].shape == (0, EMBED_DIM)


def test_a_name_that_is_not_utf8_is_a_failure(run: Any, photos: Path, tmp_path: Path) -> None:
    shutil.copy(photos / "b.png", os.fsencode(photos) + b"/citt\xe0.png")
    result = run("embed", photos, "-o", tmp_path / "foto.parquet", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["failed"][0]["error"].startswith("has a name that is not valid UTF-8")


def test_embed_does_not_mix_models_or_folders(run: Any, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "foto.npz"
    run("embed", photos, "-o", output)
    before = output.read_bytes()
    write_bundle(tmp_path / "other", config=tiny_config(name="other"), files=tiny_files(seed=1))

    other_model = run("embed", photos, "-o", output, "-m", tmp_path / "other")
    assert other_model.exit_code == 2
    assert "was made by 'tiny' with fingerprint" in other_model.stderr

    (tmp_path / "altre").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "altre" / "x.png")
    other_folder = run("embed", tmp_path / "altre", "-o", output)
    assert other_folder.exit_code == 2
    assert "holds images that are not in" in other_folder.stderr
    assert output.read_bytes() == before

    assert run("embed", tmp_path / "altre", "-o", output, "-m", tmp_path / "other", "--overwrite").exit_code == 0
    assert read(output)[0] == ["x.png"]


def test_a_partial_of_another_model_is_refused(run: Any, photos: Path, tmp_path: Path) -> None:
    partial = tmp_path / "foto.npz.partial"
    partial.mkdir()
    shard = _embed.Embeddings(["b.png"], np.zeros((1, EMBED_DIM), np.float32), "0123456789abcdef", "altro")
    _embed.write_embeddings(partial / "000000.npz", shard)
    result = run("embed", photos, "-o", tmp_path / "foto.npz")
    assert result.exit_code == 2
    assert "was made by 'altro' with fingerprint 0123456789abcdef" in result.stderr
    assert run("embed", photos, "-o", tmp_path / "foto.npz", "--overwrite").exit_code == 0
    assert not partial.exists()


def test_a_partial_of_another_folder_is_refused(
    run: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(_embed, "write_embeddings", full_disk)
        result = run("embed", photos, "-o", tmp_path / "foto.npz")
        assert (result.exit_code, result.stderr) == (2, "Error: [Errno 28] No space left on device\n")
    shutil.copytree(photos, tmp_path / "altre")
    result = run("embed", tmp_path / "altre", "-o", tmp_path / "foto.npz")
    assert result.exit_code == 2
    assert f"is of an unfinished run over '{photos}'" in result.stderr
    assert run("embed", photos, "-o", tmp_path / "foto.npz").exit_code == 0
    assert not (tmp_path / "foto.npz.partial").exists()


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_a_file_of_something_else_is_not_touched(run: Any, photos: Path, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"foto{suffix}"
    for content in (b"", b"my thesis", b"PK\x03\x04"):
        output.write_bytes(content)
        result = run("embed", photos, "-o", output)
        assert result.exit_code == 2
        assert "is no file of embeddings, or a damaged one" in result.stderr
        assert output.read_bytes() == content


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/assente", "-o", "{tmp}/x.npz"], "Directory '{tmp}/assente' does not exist"),
        (["{tmp}/vuota", "-o", "{tmp}/x.npz"], "Error: '{tmp}/vuota' holds no image: no file below it ends in .avif"),
        (["{tmp}/foto/b.png", "-o", "{tmp}/x.npz"], "is a file"),
        (["{tmp}/foto", "-o", "{tmp}/x.csv"], "'{tmp}/x.csv' must end in .npz or .parquet"),
        (["{tmp}/foto", "-o", "{tmp}/no/x.npz"], "Error: '{tmp}/no' is not a folder. Make it first: mkdir -p"),
        (["{tmp}/foto"], "Missing option '--output'"),
        (["{tmp}/foto", "-o", "{tmp}/x.npz", "-b", "0"], "Invalid value for '--batch-size'"),
        (["{tmp}/foto", "-o", "{tmp}/x.npz", "-m", "assente"], "Error: there is no model 'assente'"),
    ],
)
def test_what_embed_refuses(run: Any, photos: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "vuota").mkdir()
    result = run("embed", *(argument.replace("{tmp}", str(tmp_path)) for argument in arguments))
    assert result.exit_code == 2
    assert message.replace("{tmp}", str(tmp_path)) in result.stderr
    assert "Traceback" not in result.stderr


def test_parquet_without_pyarrow_says_what_to_install(
    run: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run("embed", photos, "-o", tmp_path / "x.parquet")
    assert result.exit_code == 2
    assert "pip install clipita[parquet]" in result.stderr


def many_photos(folder: Path, count: int) -> Path:
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "0000.png")
    for index in range(1, count):
        os.link(folder / "0000.png", folder / f"{index:04}.png")
    return folder


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_run_that_was_stopped_goes_on(run: Any, tmp_path: Path, stop: signal.Signals, code: int) -> None:
    shards = 80  # enough that the first is seen while others are still to come, be the machine ever so busy
    folder, output = many_photos(tmp_path / "foto", shards * _embed.SHARD_IMAGES), tmp_path / "foto.npz"
    # What runs in the background of a shell without job control ignores interrupts, and so do those that it starts.
    heeds = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code_run = heeds + "from clipita.cli import main; main()"
    command = [sys.executable, "-c", code_run, "embed", folder, "-o", output, "-b", "8"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(output.with_name("foto.npz.partial").glob("*.npz")):
        time.sleep(0.002)
    process.send_signal(stop)
    errors = process.communicate()[1]
    assert process.returncode == code
    assert not output.exists()
    assert ("Give the same command again" in errors) == (stop == signal.SIGINT)

    fields = json.loads(run("embed", folder, "-o", output, "--json").stdout)
    assert fields["images"] == shards * _embed.SHARD_IMAGES
    assert 0 < fields["new"] <= (shards - 1) * _embed.SHARD_IMAGES
    keys, vectors, _ = read(output)
    assert keys == sorted(path.name for path in folder.iterdir())
    assert (vectors == vectors[0]).all()
    assert not output.with_name("foto.npz.partial").exists()


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

"""`clipita embed`, as a user and as a machine see it."""

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.tiny_bundle import EMBED_DIM, tiny_config, tiny_files

import clipita
from clipita.bundles.bundle import write_bundle
from clipita.search import embed_folder as _embed
from clipita.search.embedding_file import UNKNOWN, Embeddings, read_embeddings, write_embeddings

KEYS = ["a.JPG", "b.png", "mare/città.png"]


def read(path: Path) -> tuple[list[str], np.ndarray[Any, Any], str]:
    embeddings = read_embeddings(path)
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
            "sizes": (3,),
            "mtimes_ns": (3,),
        }
        embeddings = arrays["embeddings"]
        stamps = [(photos / key).stat() for key in KEYS]
        assert arrays["sizes"].tolist() == [stamp.st_size for stamp in stamps]
        assert arrays["mtimes_ns"].tolist() == [stamp.st_mtime_ns for stamp in stamps]
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    assert table.column_names == ["key", "embedding", "size", "mtime_ns"]
    assert table["mtime_ns"].to_pylist() == [stamp.st_mtime_ns for stamp in stamps]
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
    assert "'x.png'" not in other_folder.stderr
    assert "has none of the 3 images of" in other_folder.stderr
    assert "the first of which is 'a.JPG': is it the right folder?" in other_folder.stderr
    assert output.read_bytes() == before

    assert run("embed", tmp_path / "altre", "-o", output, "-m", tmp_path / "other", "--overwrite").exit_code == 0
    assert read(output)[0] == ["x.png"]


def test_a_partial_of_another_model_is_refused(run: Any, photos: Path, tmp_path: Path) -> None:
    partial = tmp_path / "foto.npz.partial"
    partial.mkdir()
    shard = Embeddings(["b.png"], np.zeros((1, EMBED_DIM), np.float32), "0123456789abcdef", "altro", [UNKNOWN])
    write_embeddings(partial / "000000.npz", shard)
    result = run("embed", photos, "-o", tmp_path / "foto.npz")
    assert result.exit_code == 2
    assert "was made by 'altro' with fingerprint 0123456789abcdef" in result.stderr
    assert run("embed", photos, "-o", tmp_path / "foto.npz", "--overwrite").exit_code == 0
    assert not partial.exists()


def test_a_full_disk_names_the_file_and_costs_nothing_that_was_done(run: Any, tmp_path: Path) -> None:
    count = _embed.SHARD_IMAGES + 60
    folder, output = many_photos(tmp_path / "foto", count), tmp_path / "foto.npz"
    partial = tmp_path / "foto.npz.partial"
    # The shards fit, and the file of all does not: the system refuses to write on, as it does where no space is left.
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (52_000, 52_000)); "
    code = limit + "from clipita.cli.main import main; main()"
    command = [sys.executable, "-c", code, "embed", folder, "-o", output]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"Error: '{output}' cannot be written: File too large. Make room there and give the same command again: what "
        "was done is kept. Or name another place."
    ]
    assert [path.name for path in sorted(partial.iterdir())] == ["000000.npz", "000001.npz", "source"]

    shutil.copytree(folder, tmp_path / "altre")
    result = run("embed", tmp_path / "altre", "-o", output)
    assert result.exit_code == 2
    assert f"is of an unfinished run over '{folder}'" in result.stderr
    assert run("embed", folder, "-o", output).stdout == f"{output}: {count} images, 0 of them new; 0 failed\n"
    assert not partial.exists()


def test_a_place_that_cannot_be_written_to_shows_before_the_first_image(run: Any, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "foto.npz.partial").write_text("di un altro programma")
    (photos / "rotta.png").write_bytes(b"")
    result = run("embed", photos, "-o", tmp_path / "foto.npz")
    assert result.exit_code == 2
    assert result.stderr == (
        f"Error: '{tmp_path / 'foto.npz.partial'}' cannot be written: File exists. Name another place as --output.\n"
    )  # and no word of the image that is broken
    assert (tmp_path / "foto.npz.partial").read_text() == "di un altro programma"


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
        (["{tmp}/vuota", "-o", "{tmp}/x.npz"], "Error: '{tmp}/vuota' holds no image: no file below it ends in"),
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
    assert "pip install 'clipita[parquet]'" in result.stderr


def many_photos(folder: Path, count: int) -> Path:
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "0000.png")
    for index in range(1, count):
        os.link(folder / "0000.png", folder / f"{index:04}.png")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("stop", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_run_that_was_stopped_goes_on(run: Any, tmp_path: Path, stop: signal.Signals, code: int) -> None:
    shards = 80  # enough that the first is seen while others are still to come, be the machine ever so busy
    folder, output = many_photos(tmp_path / "foto", shards * _embed.SHARD_IMAGES), tmp_path / "foto.npz"
    # What runs in the background of a shell without job control ignores interrupts, and so do those that it starts.
    heeds = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code_run = heeds + "from clipita.cli.main import main; main()"
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


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_what_was_deleted_or_replaced_is_so_in_the_file(
    run: Any, shared_bundle: Path, photos: Path, tmp_path: Path, suffix: str
) -> None:
    output = tmp_path / f"foto{suffix}"
    run("embed", photos, "-o", output)
    (photos / "a.JPG").unlink()
    before = (photos / "b.png").stat()
    Image.new("RGB", (33, 21), (250, 240, 10)).save(photos / "b.png")
    os.utime(photos / "b.png", ns=(before.st_atime_ns, before.st_mtime_ns))  # copied with its old time: the size tells
    Image.new("RGB", (9, 9)).save(photos / "nuova.png")
    result = run("embed", photos, "-o", output)
    assert (result.exit_code, result.stdout) == (
        0,
        f"{output}: 3 images, 1 of them new, 1 changed; 0 failed, 1 gone\n",
    )
    keys, vectors, _ = read(output)
    assert keys == ["b.png", "mare/città.png", "nuova.png"]
    expected = clipita.load(shared_bundle).encode_image([photos / key for key in keys])
    np.testing.assert_allclose(vectors, expected, atol=1e-6)

    same_size = (photos / "nuova.png").stat()
    os.utime(photos / "nuova.png", ns=(same_size.st_atime_ns, same_size.st_mtime_ns + 1))
    fields = json.loads(run("embed", photos, "-o", output, "--json").stdout)
    counted = {name: fields[name] for name in ("images", "new", "changed", "gone", "failed", "left_aside")}
    assert counted == {
        "images": 3,
        "new": 0,
        "changed": 1,
        "gone": 0,
        "failed": [],
        "left_aside": {"hidden": 2, "no_pictures": 1},
    }


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_files_from_before_there_were_sizes_and_times_are_gone_on_with(
    run: Any, photos: Path, tmp_path: Path, suffix: str
) -> None:
    output = tmp_path / f"foto{suffix}"
    run("embed", photos, "-o", output)
    if suffix == ".npz":
        with np.load(output) as arrays:
            older = {name: arrays[name] for name in ("keys", "embeddings", "fingerprint", "model")}
        np.savez(output, **older)
    else:
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.parquet.read_table(output).select(["key", "embedding"]), output)
    assert read_embeddings(output).stamps == [UNKNOWN] * 3
    assert run("embed", photos, "-o", output).stdout == f"{output}: 3 images, 0 of them new; 0 failed\n"
    (photos / "b.png").touch()  # and from now on they are known
    assert "0 of them new, 1 changed" in run("embed", photos, "-o", output).stdout


def test_photographs_of_a_disk_that_is_not_there_stay(run: Any, photos: Path, tmp_path: Path) -> None:
    (photos / "mare").rename(tmp_path / "disco")
    (photos / "mare").symlink_to(tmp_path / "disco")
    output = tmp_path / "foto.npz"
    run("embed", photos, "-o", output)
    before = read(output)
    assert before[0] == KEYS
    (tmp_path / "disco").rename(tmp_path / "tolto")
    result = run("embed", photos, "-o", output)
    assert (result.exit_code, result.stdout) == (0, f"{output}: 3 images, 0 of them new; 0 failed\n")
    assert "1 link to what is not there (mare): is its disk mounted?" in result.stderr
    np.testing.assert_array_equal(read(output)[1], before[1])


def test_the_end_says_what_was_left_aside(run: Any, photos: Path, tmp_path: Path) -> None:
    (photos / "DSC_1.PSD").write_bytes(b"8BPS")
    (photos / "@eaDir").mkdir()
    os.mkfifo(photos / "x.jpg")  # reading it would wait for ever
    result = run("embed", photos, "-o", tmp_path / "foto.npz")
    assert result.stdout.endswith("3 images, 3 of them new; 0 failed\n")
    assert result.stderr == (
        "Left aside: 1 in a format that is not read (.psd): export as JPEG or PNG; 1 pipe, socket or device (x.jpg); "
        "1 folder of thumbnails, snapshots or deleted files (@eaDir); 2 hidden (.cache, .nascosta.png); "
        "1 that is no picture (.txt).\n"
    )


def test_a_folder_of_what_is_not_read_says_what_would_read_it(run: Any, tmp_path: Path) -> None:
    (tmp_path / "foto").mkdir()
    (tmp_path / "foto" / "IMG_1.PSD").write_bytes(b"")
    result = run("embed", tmp_path / "foto", "-o", tmp_path / "foto.npz")
    assert result.exit_code == 2
    assert ", .arw, .avif" in result.stderr
    assert result.stderr.endswith("Left aside: 1 in a format that is not read (.psd): export as JPEG or PNG.\n")


@contextlib.contextmanager
def embedding_in_a_terminal(bundle: Path, folder: Path, output: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command with a terminal of 80 columns as its standard error, and the other end of that."""
    terminal, end = os.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    heeds = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    heeds += "signal.signal(signal.SIGHUP, signal.SIG_DFL); "  # which who started the tests may have ignored
    command = [sys.executable, "-c", heeds + "from clipita.cli.main import main; main()"]
    command += ["embed", str(folder), "-o", str(output), "-m", str(bundle), "-b", "4"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=end) as process:
        os.close(end)
        try:
            yield process, terminal
        finally:
            os.close(terminal)


def read_all(terminal: int) -> str:
    shown = b""
    with contextlib.suppress(OSError):  # how Linux says that nobody has the terminal open any more
        while part := os.read(terminal, 4096):
            shown += part
    return shown.decode()


def test_the_bar_has_numbers_from_the_first_image_on(shared_bundle: Path, tmp_path: Path) -> None:
    folder = many_photos(tmp_path / "foto", 40)
    with embedding_in_a_terminal(shared_bundle, folder, tmp_path / "foto.npz") as (process, terminal):
        shown = read_all(terminal)
        assert process.wait() == 0
    counts = re.findall(r"(\d+)/(\d+)", shown)
    assert counts[0] == ("0", "40")
    assert counts[-1] == ("40", "40")
    assert not re.search(r"\d images \[", shown)  # how a bar without a total looks


@pytest.mark.parametrize(
    ("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (None, 129)]
)
def test_what_is_done_is_kept_whatever_ends_the_run(
    shared_bundle: Path, tmp_path: Path, stop: signal.Signals | None, code: int
) -> None:
    folder, count = tmp_path / "foto", _embed.SHARD_IMAGES - 1  # no shard is whole
    folder.mkdir()
    Image.effect_noise((2000, 1500), 90).save(folder / "0000.png")  # takes long enough to read
    for index in range(1, count):
        os.link(folder / "0000.png", folder / f"{index:04}.png")
    with embedding_in_a_terminal(shared_bundle, folder, tmp_path / "foto.npz") as (process, terminal):
        shown = ""
        while not re.search(r" [1-9]\d*/", shown):
            shown += os.read(terminal, 4096).decode(errors="replace")
        process.send_signal(stop or signal.SIGHUP)
        if stop is not None:
            process.send_signal(stop if stop == signal.SIGTERM else signal.SIGTERM)  # a second one changes nothing
            assert "Give the same command again" in read_all(terminal)
            assert process.wait() == code
    assert process.returncode == code  # without `stop` the terminal was closed, and there is nowhere to say anything
    (shard,) = (tmp_path / "foto.npz.partial").glob("*.npz")
    assert 0 < len(read(shard)[0]) < count


def test_what_is_seen_of_a_panorama_may_be_chosen_and_does_not_mix(
    run: Any, shared_bundle: Path, photos: Path, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (20, 90, 3), dtype=np.uint8)).save(photos / "larga.png")
    model = clipita.load(shared_bundle)
    found: dict[str, Any] = {}
    for crop in ("auto", "center", "pad", "tiles"):
        output = tmp_path / f"{crop}.npz"
        assert run("embed", photos, "-o", output, "--crop", crop).exit_code == 0
        keys, vectors, found[crop] = read(output)
        expected = model.encode_image([photos / key for key in keys], crop=crop)  # type: ignore[arg-type]
        np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert found["auto"] == model.fingerprint
    assert len(set(found.values())) == 4
    result = run("embed", photos, "-o", tmp_path / "auto.npz", "--crop", "tiles")
    assert result.exit_code == 2
    assert "do not mix" in result.stderr

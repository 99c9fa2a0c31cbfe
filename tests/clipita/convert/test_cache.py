"""Bundles that are made once: whatever stops the making, and whoever else makes them."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support import TESTS
from support.tiny_bundle import tiny_config, tiny_files

from clipita.bundles.bundle import write_bundle
from clipita.convert import cache
from clipita.convert.cache import cache_folder, cached_bundle
from clipita.convert.folder.model_card import license_of
from clipita.convert.weights.quantize import Stored
from clipita.convert.weights.safetensors_file import write_weights
from clipita.errors import CheckpointError

# Makes the bundle at argv[1], telling so on its output, and takes its time between the files of it.
MAKER = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from support.tiny_bundle import tiny_config, tiny_files
from clipita.bundles.bundle import write_bundle
from clipita.convert.cache import cached_bundle

def make(folder):
    print("making", flush=True)
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"half")
    time.sleep(float(sys.argv[3]))
    write_bundle(folder, config=tiny_config(), files=tiny_files())

print(cached_bundle(Path(sys.argv[1]), make, called="'tiny'", needed_bytes=1).config.name, flush=True)
"""


def start(place: Path, seconds: float) -> "subprocess.Popen[str]":
    arguments = [sys.executable, "-c", MAKER, str(place), str(TESTS), str(seconds)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def make(folder: Path) -> None:
    write_bundle(folder, config=tiny_config(), files=tiny_files())


def never(folder: Path) -> None:
    raise AssertionError(f"{folder} is made again")


def cached(place: Path, maker: object = make, needed_bytes: int = 1) -> object:
    return cached_bundle(place, maker, called="'tiny'", needed_bytes=needed_bytes)  # type: ignore[arg-type]


def test_a_bundle_is_made_once_and_its_contents_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "deep" / "tiny" / "0123"
    assert cached(place).config == tiny_config()  # type: ignore[attr-defined]
    with monkeypatch.context() as patched:
        patched.setattr("hashlib.file_digest", never)
        cached(place, never)
    assert sorted(path.name for path in place.parent.iterdir()) == [".0123.lock", "0123"]


def test_a_damaged_bundle_is_made_again(tmp_path: Path) -> None:
    place = tmp_path / "0123"
    cached(place)
    weights = place / "weights.safetensors"
    content = weights.read_bytes()
    os.utime(weights)  # touched and the same: it is looked at, and good
    cached(place, never)
    weights.write_bytes(content[:-1])
    cached(place)
    assert weights.read_bytes() == content
    (place / "text.onnx").unlink()
    cached(place)
    assert (place / "text.onnx").exists()


def test_a_killed_process_leaves_nothing_half_made(tmp_path: Path) -> None:
    place = tmp_path / "0123"
    process = start(place, 60)
    assert process.stdout is not None
    assert process.stdout.readline() == "making\n"
    waiting = start(place, 0)
    time.sleep(1)
    assert waiting.poll() is None
    assert not place.exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert waiting.communicate(timeout=30)[0] == "making\ntiny\n"  # the lock went with the process that held it
    cached(place, never)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".0123.lock", "0123"]


@pytest.mark.slow
def test_of_two_processes_one_makes_it_and_the_other_waits(tmp_path: Path) -> None:
    processes = [start(tmp_path / "0123", 2) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert sorted(outputs) == ["making\ntiny\n", "tiny\n"]


def test_a_maker_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def failing(folder: Path) -> None:
        make(folder)
        raise CheckpointError("no such layer")

    with pytest.raises(CheckpointError, match="no such layer"):
        cached(tmp_path / "0123", failing)
    assert [path.name for path in tmp_path.iterdir()] == [".0123.lock"]
    cached(tmp_path / "0123")


def test_a_full_disk_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'tiny' takes 1000000000\.0 GB once it is converted, .* GB left\. Make"):
        cached(tmp_path / "0123", never, needed_bytes=10**18)

    def too_large(folder: Path) -> None:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        try:
            make(folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)

    with pytest.raises(CheckpointError, match=r"cannot be written to: File too large\. Make room, or name another"):
        cached(tmp_path / "0123", too_large)
    assert [path.name for path in tmp_path.iterdir()] == [".0123.lock"]


def test_a_folder_that_may_not_be_written_to_is_said_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"'tiny' has to be converted once, and '.*file/x' cannot be written to"):
        cached(tmp_path / "file" / "x" / "0123")

    cached(tmp_path / "0123")

    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", read_only)
    cached(tmp_path / "0123", never)  # what is there is used
    with pytest.raises(
        CheckpointError, match=r"cannot be written to: Read-only file system\. .*cache_dir=\.\.\., or HF"
    ):
        cached(tmp_path / "4567")


def test_the_cache_is_beside_the_hubs(tmp_path: Path) -> None:
    assert cache_folder(tmp_path) == tmp_path / "clipita"
    code = "from clipita.convert.cache import cache_folder; print(cache_folder(None))"
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path / 'home' / 'clipita'}\n"


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlanguage: it\nlicense: gpl-3.0\ntags:\n- clip\n---\n# CLIP-Italian\n", "gpl-3.0"),
        ("---\r\nlicense: 'mit' # as it says\r\n---\r\n", "mit"),
        ("---\nlicense:\n- apache-2.0\n---", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: research-only\n---\n", "research-only"),
        ("---\nlicense: other\n---\n", "other"),
        ("---\ntags: x\n---\nlicense: mit\n", None),
        ("# Title\n---\nlicense: mit\n---\n", None),
        ("---\nlicense:\ntags: x\n---\n", None),
        ("", None),
    ],
)
def test_the_licence_is_what_the_model_card_says(tmp_path: Path, card: str, expected: str | None) -> None:
    assert license_of(tmp_path) is None
    (tmp_path / "README.md").write_bytes(card.encode())
    assert license_of(tmp_path) == expected


def test_the_stamp_is_not_a_file_of_the_bundle(tmp_path: Path) -> None:
    cached(tmp_path / "0123")
    assert cache._STAMP not in json.loads((tmp_path / "0123" / "clipita.json").read_text())["files"]


@pytest.mark.parametrize(
    "card",
    [
        "---" + "\n" * 1_000_000,
        "---\n" * 250_000,
        "---\n" + "license:" + " " * 1_000_000,
        "---\n" + "license:" + "\n" * 1_000_000,
        "---\n" + "license:\n" * 100_000 + "---\n",
        "---\nlicense: x" + " #" * 400_000 + "\n---\n",
        "---\nlicense: x" + " \t" * 400_000 + "y\n---\n",
        "---\nlicense: " + "['\"" * 300_000 + "\n---\n",
        "---" + " " * 1_000_000 + "\n---\n",
        "---\n" + "license: " + "x" * 1_000_000 + "\n---\n",
        "---\n" + "license:\n" + " - " * 300_000 + "\n---\n",
    ],
)
def test_a_model_card_is_read_in_the_time_that_its_length_takes(tmp_path: Path, card: str) -> None:
    (tmp_path / "README.md").write_text(card)
    start = time.process_time()
    assert license_of(tmp_path) in (None, "x")
    assert time.process_time() - start < 1


def test_a_model_card_that_is_no_file_says_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "README.md")
    assert license_of(tmp_path) is None


def test_the_disk_must_have_room_for_the_weights_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {"a": Stored(np.zeros((1000, 1000), np.float16), np.dtype(np.float32))}  # 4 MB, of a source of 2
    spare = 64 << 20
    for free, fits in ((spare + 3_999_999, False), (spare + 4_000_100, True)):
        monkeypatch.setattr("shutil.disk_usage", lambda path, free=free: shutil._ntuple_diskusage(0, 0, free))
        if fits:
            write_weights(tmp_path / "weights", weights)
            assert (tmp_path / "weights").stat().st_size <= free - spare
        else:
            with pytest.raises(CheckpointError, match=r"the weights take 0\.00 GB in this form, and .* Make"):
                write_weights(tmp_path / "weights", weights)
            assert not (tmp_path / "weights").exists()


def test_weights_that_are_moved_are_never_there_twice(tmp_path: Path) -> None:
    source = tmp_path / "elsewhere" / "made.safetensors"
    source.parent.mkdir()
    files: dict[str, Path | bytes] = {**tiny_files()}
    source.write_bytes(tiny_files()["weights.safetensors"])
    inode = source.stat().st_ino
    bundle = write_bundle(
        tmp_path / "tiny",
        config=tiny_config(),
        files={**files, "weights.safetensors": source},
        moved=["weights.safetensors"],
    )
    assert not source.exists()
    assert bundle.path("weights.safetensors").stat().st_ino == inode
    write_bundle(bundle.folder, config=tiny_config(name="onto itself"), files={n: bundle.path(n) for n in bundle.files})
    assert bundle.path("weights.safetensors").stat().st_ino == inode

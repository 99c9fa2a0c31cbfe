"""`clipita.load` on checkpoints of each layout: by folder and by name, kept, in 8 bits, and written back."""

import contextlib
import fcntl
import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.hub_stand_in import COMMIT, Hub
from support.oracles import ORACLES, POSITIONS, Oracle
from support.written_checkpoints import TEXTS, tokenizer, written_as

import clipita
from clipita.convert.folder import origin
from clipita.convert.folder.files import WEIGHT_FILES
from clipita.convert.layouts import checkpoint
from clipita.errors import CheckpointError
from clipita.loading import repository as _repository

pytestmark = pytest.mark.slow

# One of each row of what loads.
LAYOUTS = {
    "vision-text": "the same of transformers 4, BERT x CLIP",
    "hybrid-clip": "hybrid-clip",
    "clip": "CLIP, end by eos_token_id",
    "siglip": "SigLIP",
    "open-clip": "OpenCLIP, XLM-R base, mean, mlp",
    "sentence-transformers": "mCLIP, image half of sentence-transformers",
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Oracle]:
    return {
        layout: written_as(ORACLES[LAYOUTS[layout]], tmp_path_factory.mktemp(layout) / "checkpoint")
        for layout in LAYOUTS
    }


def expected(oracle: Oracle) -> tuple[Any, Any]:
    """Image and text embeddings of `picture()` and of TEXTS, by the library that wrote the checkpoint."""
    rows: list[Any] = []
    for text in TEXTS:
        ids = tokenizer(oracle).encode(text).ids
        mask = [1] * len(ids)
        if oracle.full_length:
            ids, mask = (x + [fill] * (POSITIONS - len(x)) for x, fill in ((ids, oracle.pad), (mask, 0)))
        rows.append(oracle.text(np.array([ids]), np.array([mask]))[0])
    return oracle.image(picture()[None])[0], np.array(rows)


def picture() -> Any:
    return np.random.default_rng(3).integers(0, 256, (40, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folders(checkpoints: dict[str, Oracle]) -> dict[str, Path]:
    """What a user would load. Of a pair, the image half is in the folder of the text half, under the library's name."""
    pair = checkpoints["sentence-transformers"]
    assert pair.images is not None
    (pair.folder / "clip-ViT-B-32").symlink_to(pair.images)
    return {layout: oracle.folder for layout, oracle in checkpoints.items()}


# The towers on Flax have tests of their own, in which every layout is compared.
@pytest.mark.parametrize(("layout", "backend"), [*((layout, "onnx") for layout in LAYOUTS), ("siglip", "flax")])
def test_a_folder_gives_the_embeddings_of_its_library(
    layout: str, backend: Any, checkpoints: dict[str, Oracle], folders: dict[str, Path], tmp_path: Path
) -> None:
    oracle, folder = checkpoints[layout], folders[layout]
    before = sorted(folder.rglob("*"))
    model = clipita.load(folder, backend=backend, cache_dir=tmp_path)
    image, texts = expected(oracle)
    np.testing.assert_allclose(model.encode_image(picture()), image, atol=1e-5)
    np.testing.assert_allclose(model.encode_text(TEXTS), texts, atol=1e-5)
    assert model.logit_scale == pytest.approx(oracle.logit_scale, rel=1e-5)
    assert model.logit_bias == (oracle.logit_bias and pytest.approx(oracle.logit_bias, rel=1e-5))
    assert sorted(folder.rglob("*")) == before  # the user's folder is not written to


def test_labels_of_a_sigmoid_model_are_judged_one_by_one(
    checkpoints: dict[str, Oracle], folders: dict[str, Path], tmp_path: Path
) -> None:
    image, texts = expected(checkpoints["siglip"])
    oracle = checkpoints["siglip"]
    logits = oracle.logit_scale * texts @ image + oracle.logit_bias
    found = clipita.load(folders["siglip"], cache_dir=tmp_path).zero_shot(picture(), TEXTS, templates="{}")
    chances = dict(found)
    np.testing.assert_allclose([chances[text] for text in TEXTS], 1 / (1 + np.exp(-logits)), rtol=1e-3)
    assert [score for _, score in found] == sorted(chances.values(), reverse=True)


def test_a_checkpoint_is_converted_once_and_again_when_it_changes(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(folders["clip"], tmp_path / "mio")
    first = clipita.load(folder, cache_dir=tmp_path / "cache")
    with monkeypatch.context() as patched:
        patched.setattr("clipita.convert.foreign.convert", None)
        patched.setattr("clipita.convert.readers.weights.read_weights", None)
        assert clipita.load(folder, cache_dir=tmp_path / "cache").fingerprint == first.fingerprint
    leaves = load_file(folder / "model.safetensors")
    leaves["visual_projection.weight"] *= 2
    leaves["text_model.final_layer_norm.bias"] += 1
    save_file(leaves, folder / "model.safetensors")
    changed = clipita.load(folder, cache_dir=tmp_path / "cache")
    assert changed.fingerprint != first.fingerprint
    np.testing.assert_allclose(changed.encode_image(picture()), first.encode_image(picture()), atol=1e-6)
    assert len(list((tmp_path / "cache" / "clipita" / "mio").glob("[!.]*"))) == 2


def test_of_the_conversion_a_second_load_imports_nothing_heavy(folders: dict[str, Path], tmp_path: Path) -> None:
    clipita.load(folders["clip"], cache_dir=tmp_path)
    code = (
        f"import sys, clipita; clipita.load({str(folders['clip'])!r}, cache_dir={str(tmp_path)!r}); "
        "print([name for name in ('onnx', 'ml_dtypes', 'safetensors') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


_COUNTING = """
import collections, json, os, sys
import clipita
from clipita.images.pixels import Preprocessing
from clipita.text.tokenizer import TokenizerConfig
from clipita.towers.config import DualConfig

opened, read = collections.Counter(), collections.Counter()

def counted(cls, name):
    method = getattr(cls, name).__func__
    def counting(cls, *args):
        read[cls.__name__] += 1
        return method(cls, *args)
    setattr(cls, name, classmethod(counting))

counted(Preprocessing, "from_dict")
counted(TokenizerConfig, "from_dict")
counted(DualConfig, "from_bundle")

def on_event(event, args):
    if event == "open" and isinstance(args[0], (str, os.PathLike)):
        opened[os.path.basename(args[0])] += 1

sys.addaudithook(on_event)
clipita.load(sys.argv[1], backend=sys.argv[2], cache_dir=sys.argv[3])
print(json.dumps({"opened": opened, "read": read}))
"""


@pytest.mark.parametrize(("form", "backend"), [("bundle", "onnx"), ("checkpoint", "flax")])
def test_a_load_reads_each_description_once(form: str, backend: str, folders: dict[str, Path], tmp_path: Path) -> None:
    clipita.load(folders["clip"], cache_dir=tmp_path)
    (kept,) = (path.parent for path in tmp_path.rglob("clipita.json"))
    folder = shutil.copytree(kept, tmp_path / "bundle") if form == "bundle" else folders["clip"]
    command = [sys.executable, "-c", _COUNTING, str(folder), backend, str(tmp_path)]
    counts = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert counts["read"] == {"Preprocessing": 1, "TokenizerConfig": 1, "DualConfig": 1}
    assert counts["opened"]["clipita.json"] == 1
    assert "config.json" not in counts["opened"]  # of the checkpoint, whose bundle is found without it


def test_int8_is_made_once_and_knows_what_it_costs(
    checkpoints: dict[str, Oracle], folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = clipita.load(folders["clip"], cache_dir=tmp_path)
    small = clipita.load(folders["clip"], cache_dir=tmp_path, precision="int8")
    assert (full.precision, small.precision) == ("fp32", "int8")
    assert full.fingerprint != small.fingerprint
    with monkeypatch.context() as patched:
        patched.setattr("clipita.loading.open.rewritten", None)
        again = clipita.load(folders["clip"], cache_dir=tmp_path, precision="int8")
        flax = clipita.load(folders["clip"], cache_dir=tmp_path, precision="int8", backend="flax")
    image, texts = expected(checkpoints["clip"])
    (place,) = (tmp_path / "clipita" / "checkpoint").glob("[!.]*-int8-*")
    fidelity = json.loads((place / "clipita.json").read_text())["fidelity"]
    assert fidelity.keys() == {"image_cosine", "image_cosine_min", "text_cosine", "text_cosine_min"}
    assert all(0.99 < cosine < 1 for cosine in fidelity.values())
    for model in (small, again, flax):
        assert 0.99 < float(model.encode_image(picture()) @ image) < 1 - 1e-7
        assert ((model.encode_text(TEXTS) * texts).sum(-1) > 0.99).all()


# Loads what its arguments say, one after the other, and prints what came of it.
CLIENT = """
import json, sys, clipita
for name, options in json.loads(sys.argv[1]):
    model = clipita.load(name, **options)
    embedding = model.encode_text("un gatto").tolist()
    print(json.dumps([model.name, model.license, model.fingerprint, model.precision, embedding]))
"""


def load_there(hub: Hub, home: Path, *calls: tuple[str, dict[str, Any]]) -> tuple[list[list[Any]], str]:
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, json.dumps(calls)],
        env=hub.environment(home),
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_a_name_is_fetched_converted_and_then_used_without_the_hub(
    hub: Hub, checkpoints: dict[str, Oracle], folders: dict[str, Path], tmp_path: Path
) -> None:
    gpl = shutil.copytree(folders["vision-text"], tmp_path / "gpl")
    (gpl / "README.md").write_text("---\nlanguage: it\nlicense: gpl-3.0\n---\n")
    pair = checkpoints["sentence-transformers"]
    assert pair.images is not None
    hub.repositories = {
        "clip-italian/clip-italian": {COMMIT: gpl},
        "sentence-transformers/clip-ViT-B-32-multilingual-v1": {COMMIT: pair.folder},
        "sentence-transformers/clip-ViT-B-32": {COMMIT: pair.images},
    }
    names = [*hub.repositories][:2]
    calls: list[tuple[str, dict[str, Any]]] = [
        *((name, {}) for name in names),
        (names[0], {"precision": "int8"}),
        (names[0], {"backend": "flax"}),
    ]
    found, said = load_there(hub, tmp_path / "home", *calls)
    assert [row[:2] for row in found] == [
        ["clip-italian/clip-italian", "gpl-3.0"],
        ["sentence-transformers/clip-ViT-B-32-multilingual-v1", "apache-2.0"],  # from the list: it has no card
        *[["clip-italian/clip-italian", "gpl-3.0"]] * 2,
    ]
    assert said.count("The weights of 'clip-italian/clip-italian' are under gpl-3.0: whoever passes on") == 1
    assert said.count("\n") == 1, said  # and nothing else, no progress bar either: it is no terminal
    kept = tmp_path / "home" / "clipita"
    assert sorted(path.name for path in kept.iterdir()) == [
        "clip-italian--clip-italian",
        "sentence-transformers--clip-ViT-B-32-multilingual-v1",
    ]

    hub.requests.clear()
    assert load_there(hub, tmp_path / "home", *calls)[0] == found
    assert hub.requests == []


def test_a_licence_is_said_once_and_only_where_it_surprises(
    folders: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for license, expected_words in {
        "gpl-3.0": "under the same license",
        "cc-by-nc-4.0": "may not be used commercially",
        "mit": None,
        "lgpl-3.0": None,
    }.items():
        folder = shutil.copytree(folders["clip"], tmp_path / license)
        (folder / "README.md").write_text(f"---\nlicense: {license}\n---\n")
        caplog.clear()
        for _ in range(2):
            assert clipita.load(folder, cache_dir=tmp_path / "cache").license == license
        lines = [record.message for record in caplog.records if record.name == "clipita"]
        assert len(lines) == (expected_words is not None)
        assert expected_words is None or expected_words in lines[0]


def test_folders_of_no_known_layout_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is of no layout that clipita reads"):
        clipita.load(tmp_path, cache_dir=tmp_path / "cache")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="'model_type': 'bert'"):
        clipita.load(tmp_path, cache_dir=tmp_path / "cache")


def test_of_a_folder_that_holds_a_model_twice_the_one_with_weights_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    assert checkpoint.detect_layout(tmp_path) == "clip"
    (tmp_path / "open_clip_config.json").write_text("{}")
    (tmp_path / "open_clip_pytorch_model.bin").write_bytes(b"")
    assert checkpoint.detect_layout(tmp_path) == "open-clip"
    (tmp_path / "pytorch_model.bin.index.json").write_text("{}")
    assert checkpoint.detect_layout(tmp_path) == "clip"


def test_a_terminal_is_told_what_is_being_done_and_left_clean(folders: dict[str, Path], tmp_path: Path) -> None:
    code = "import sys, clipita; clipita.load(sys.argv[1], cache_dir=sys.argv[2])"
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen([sys.executable, "-c", code, folders["clip"], tmp_path], stderr=theirs)
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # how a terminal ends
        while more := os.read(ours, 1000):
            said += more
    os.close(ours)
    assert process.wait() == 0
    assert b"Converting checkpoint: 00:00, reading" in said
    assert said.endswith(b" \r")


def test_what_is_fetched_is_what_is_read() -> None:
    """The hub's part and the converter have a list each, as neither imports the other."""
    assert set(_repository.MODEL_TYPES) == set(checkpoint._BY_MODEL_TYPE)
    assert {*_repository.WEIGHTS, *_repository.OPEN_CLIP_WEIGHTS} >= {*WEIGHT_FILES}


def test_a_folder_that_is_no_checkpoint_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=r"is of no layout that clipita reads: it has no config\.json of"):
        clipita.load("/usr", cache_dir=tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    for index in range(30):
        (tmp_path / f"{index}.txt").touch()
    monkeypatch.setattr(origin, "_MAX_FILES", 20)
    with pytest.raises(CheckpointError, match="holds more than 20 files, and a checkpoint has a few dozen"):
        clipita.load(tmp_path, cache_dir=tmp_path / "cache")


# Writes and deletes files in a folder, and folders in it, until it is ended.
BUSY = """
import itertools, shutil, sys
from pathlib import Path
for number in itertools.count():
    folder = Path(sys.argv[1]) / f"part-{number % 7}"
    folder.mkdir(exist_ok=True)
    for index in range(20):
        (folder / f"{index}.safetensors").touch()
    if number == 7:
        print("busy", flush=True)
    shutil.rmtree(folder)
"""


def test_a_folder_may_change_while_it_is_looked_through(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    busy = subprocess.Popen([sys.executable, "-c", BUSY, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert busy.stdout is not None
        assert busy.stdout.readline() == "busy\n"
        for _ in range(150):
            with pytest.raises(CheckpointError):
                clipita.load(tmp_path, cache_dir=tmp_path.parent / "cache")
    finally:
        busy.kill()
        busy.communicate()

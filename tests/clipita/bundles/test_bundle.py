"""Writing a bundle, reading it back, and refusing what is not one."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.tiny_bundle import tiny_config, tiny_files

from clipita import load
from clipita.bundles.bundle import Graphs, read_bundle, write_bundle
from clipita.errors import CheckpointError


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "clipita.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_what_is_written_is_read(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    assert bundle.config == tiny_config()
    assert sorted(bundle.files) == ["image.onnx", "text.onnx", "tokenizer.json", "weights.safetensors"]
    assert bundle.path("text.onnx").read_bytes() == tiny_files()["text.onnx"]
    assert sorted(path.name for path in tiny_bundle.iterdir()) == sorted([*bundle.files, "clipita.json"])
    manifest = json.loads((tiny_bundle / "clipita.json").read_text())
    assert next(iter(manifest)) == "format_version"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format_version=2), r"format_version 2, and this clipita reads up to 1.*pip install -U"),
        (lambda m: m.pop("format_version"), "'format_version' must be an int from 1 on, but it is None"),
        (lambda m: m.update(format_version=True), "'format_version' must be an int from 1 on, but it is True"),
        (lambda m: m.update(logit_scal=1.0), r"unknown key 'logit_scal'. Did you mean 'logit_scale'\?"),
        (lambda m: m.pop("license"), "lacks 'license'"),
        (lambda m: m.update(embed_dim="32"), "'embed_dim' must be int, but it is '32'"),
        (lambda m: m.update(embed_dim=True), "'embed_dim' must be int, but it is True"),
        (lambda m: m.update(embed_dim=0), "embed_dim and logit_scale must be positive, but they are 0"),
        (lambda m: m.update(logit_scale=-1), "must be positive"),
        (lambda m: m.update(logit_scale=float("nan")), "'logit_scale' must be float, but it is nan"),
        (lambda m: m.update(templates="{}"), "'templates' must be"),
        (lambda m: m.update(templates=["una foto"]), "'templates' must be sentences with one {} each"),
        (lambda m: m.update(templates=[]), "'templates' must be sentences with one {} each"),
        (lambda m: m.update(image=[]), "'image' must be"),
        (lambda m: m["image"].pop("preprocessing"), "'image' must hold an object 'preprocessing'"),
        (lambda m: m["text"].update(tokenizer=3), "'text' must hold an object 'tokenizer'"),
        (lambda m: m.update(precisions={"fp32": {"image": "image.onnx"}}), "lacks 'text'"),
        (lambda m: m["precisions"]["fp32"].update(audio="a.onnx"), "unknown key 'audio'"),
        (lambda m: m["precisions"]["fp32"].update(image="other.onnx"), "'files' lacks 'other.onnx'"),
        (lambda m: m.update(recommended_precision="fp3"), r"'precisions' has \['fp32'\]. Did you mean 'fp32'\?"),
        (lambda m: m["files"].pop("weights.safetensors"), "'files' lacks 'weights.safetensors'"),
        (lambda m: m["files"].update({"../x.onnx": "0"}), "'../x.onnx' cannot be a file of a bundle"),
        (lambda m: m["files"].update({"/etc/passwd": "0"}), "'/etc/passwd' cannot be a file of a bundle"),
        (lambda m: m["files"].update({"C:\\x": "0"}), "cannot be a file of a bundle"),
        (lambda m: m["files"].update({"onnx/x": "0"}), "cannot be a file of a bundle"),
        (lambda m: m["files"].update({"..": "0"}), "cannot be a file of a bundle"),
        (lambda m: m["files"].update({"extra.onnx": "0"}), "lacks the file 'extra.onnx'"),
        (lambda m: m["files"].update({"x" * 256: "0"}), "cannot be a file of a bundle"),
        (lambda m: m.update(embed_dim=2**31), "'embed_dim' is 2,147,483,648, expected a number from 1 to 65,536"),
        (lambda m: m.update(embed_dim=2**70), "'embed_dim' is of 22 digits, expected a number from 1 to 65,536"),
        (lambda m: m.update(logit_scale=10**400), "'logit_scale' must be float, but it is 1000"),
        (lambda m: m.update(logit_scale=1e9), r"'logit_scale' is 1e\+09, expected a number more than 0.0 and at most"),
        (lambda m: m.update(logit_bias=-1e9), r"'logit_bias' is -1e\+09, expected a number from -1,000,000.0 to"),
        (lambda m: m.update(name="x" * 1001), "'name' has 1,001 characters, expected up to 1,000"),
        (lambda m: m.update(name="\ud800"), "'name' holds half a character"),
        (lambda m: m.update(templates=["{}"] * 1001), "'templates' has 1,001 entries, expected up to 1,000"),
        (lambda m: m["image"].update(kind=[]), r"'image'\['kind'\] must be a str"),
        (lambda m: m["image"].update(deep=[[[[[[1]]]]]]), "nests deeper than 4 levels"),
        (lambda m: m["image"].update(width=0), r"'image'\['width'\] is 0, expected a number more than 0.0"),
        (lambda m: m["image"].update(layers=0), r"'image'\['layers'\] is 0, expected a number from 1 to 256"),
        (
            lambda m: m["image"]["preprocessing"].update(image_size=0),
            r"\['image_size'\] is 0, expected a number from 1",
        ),
        (
            lambda m: m["image"]["preprocessing"].update(short_side=2**31),
            r"\['short_side'\] is 2,147,483,648, expected",
        ),
        (lambda m: m["text"]["tokenizer"].update(max_tokens=2**40), r"\['max_tokens'\] is 1,099,511,627,776, expected"),
        (lambda m: m["text"]["tokenizer"].update(prefix="x" * 1001), r"\['prefix'\] has 1,001 characters"),
        (lambda m: m["files"].update({"text.onnx": "0" * 64}), r"text.onnx' is damaged .*says 000000000000"),
    ],
)
def test_a_wrong_manifest_is_refused(
    tiny_bundle: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit(tiny_bundle, change)
    with pytest.raises(CheckpointError, match=message):
        read_bundle(tiny_bundle)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not valid JSON"),
        (b"{", "is not valid JSON"),
        (b"\xff\xfe\x00", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"[]", "must hold a JSON object, but it holds a list"),
        (b" " * ((1 << 20) + 1), "has more than 1,048,576 bytes, which no description of a model needs"),
        (b"version https://git-lfs.github.com/spec/v1", "is not valid JSON"),
    ],
)
def test_a_manifest_that_is_no_object_is_refused(tiny_bundle: Path, content: bytes, message: str) -> None:
    (tiny_bundle / "clipita.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_bundle(tiny_bundle)


def test_missing_and_damaged_files_are_named(tiny_bundle: Path) -> None:
    weights = tiny_bundle / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"weights.safetensors' is damaged or was changed"):
        read_bundle(tiny_bundle)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"lacks the file 'weights.safetensors'. Copy or download"):
        read_bundle(tiny_bundle)
    (tiny_bundle / "clipita.json").unlink()
    with pytest.raises(CheckpointError, match=r"is not a clipita bundle: it has no clipita.json"):
        read_bundle(tiny_bundle)
    (tiny_bundle / "clipita.json").mkdir()
    with pytest.raises(CheckpointError, match="cannot be read: Is a directory"):
        read_bundle(tiny_bundle)


def test_links_may_not_leave_the_bundle_but_the_hub_cache_works(tiny_bundle: Path, tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere.onnx"
    (tiny_bundle / "image.onnx").rename(outside)
    (tiny_bundle / "image.onnx").symlink_to(outside)
    with pytest.raises(CheckpointError, match=r"is a link to .*elsewhere.onnx', outside its folder"):
        read_bundle(tiny_bundle)

    (tiny_bundle / "image.onnx").unlink()
    outside.rename(tiny_bundle / "image.onnx")
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    shutil.copytree(tiny_bundle, blobs)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(os.path.relpath(path, snapshot))
    assert read_bundle(snapshot).config == tiny_config()


def test_the_fingerprint_covers_what_changes_embeddings(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    fingerprint = bundle.fingerprint("fp32")
    assert len(fingerprint) == 16
    assert bundle.fingerprint("int8") != fingerprint

    def changed(**changes: Any) -> str:
        return write_bundle(tiny_bundle, config=tiny_config(**changes), files=tiny_files()).fingerprint("fp32")

    config = tiny_config()
    assert changed(name="other", templates=("{}",)) == fingerprint
    assert changed(image={**config.image, "preprocessing": {"image_size": 9}}) != fingerprint
    assert changed(text={**config.text, "tokenizer": {"max_tokens": 12}}) != fingerprint
    other = write_bundle(tiny_bundle, config=config, files=tiny_files(seed=1))
    assert other.fingerprint("fp32") != fingerprint


def test_writing_copies_files_and_replaces_a_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    files: dict[str, Path | bytes] = {name: tiny_bundle / name for name in tiny_files()}
    (tiny_bundle / "README.md").write_text("una scheda")
    write_bundle(tiny_bundle, config=tiny_config(name="renamed"), files=files)  # onto itself
    assert read_bundle(tiny_bundle).config.name == "renamed"
    assert (tiny_bundle / "README.md").exists()
    copied = write_bundle(tmp_path / "deep" / "copy", config=tiny_config(), files=files)
    assert copied.files == read_bundle(tiny_bundle).files


def test_what_would_not_be_read_is_not_written(tiny_bundle: Path, tmp_path: Path) -> None:
    files = tiny_files()
    with pytest.raises(CheckpointError, match=r"'files' lacks 'big.onnx'"):
        write_bundle(
            tmp_path / "new", config=tiny_config(precisions={"fp32": Graphs("big.onnx", "text.onnx")}), files=files
        )
    with pytest.raises(CheckpointError, match="cannot be a file of a bundle"):
        write_bundle(tmp_path / "new", config=tiny_config(), files={**files, "a/b": b""})
    assert not (tmp_path / "new").exists()


def test_an_interrupted_write_leaves_no_bundle(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, calls = os.replace, []

    def failing(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="No space left"):
        write_bundle(tiny_bundle, config=tiny_config(), files=tiny_files(seed=1))
    with pytest.raises(CheckpointError, match="is not a clipita bundle"):
        read_bundle(tiny_bundle)
    assert not list(tiny_bundle.glob("*.part")) + list(tiny_bundle.glob(".*.part"))


def test_what_is_said_of_pixels_and_texts_is_understood_before_anything_is_built(tiny_bundle: Path) -> None:
    for part, change, message in (
        ("image", {"image_size": None}, "image.preprocessing: 'image_size' must be int, but it is None"),
        ("image", {"short_side": 3}, "short_side must be 8 or more, but it is 3"),
        ("text", {"max_tokens": "12"}, "text.tokenizer: 'max_tokens' must be int, but it is '12'"),
    ):
        write_bundle(tiny_bundle, config=tiny_config(), files=tiny_files())
        key = "preprocessing" if part == "image" else "tokenizer"
        edit(tiny_bundle, lambda m, part=part, key=key, change=change: m[part][key].update(change))
        with pytest.raises(CheckpointError, match=message):
            load(tiny_bundle)
    write_bundle(tiny_bundle, config=tiny_config(), files=tiny_files())
    edit(tiny_bundle, lambda m: m["image"]["preprocessing"].pop("image_size"))
    with pytest.raises(CheckpointError, match=r"image\.preprocessing lacks 'image_size'"):
        load(tiny_bundle)
    towers = {"image": {"kind": "vit"}, "text": {"kind": "bert", "vocabulary": 9, "epsilon": "small"}}
    edit(tiny_bundle, lambda m: [m[part].update(fields) for part, fields in towers.items()])
    edit(tiny_bundle, lambda m: m["image"]["preprocessing"].update(image_size=8))
    with pytest.raises(CheckpointError, match=r"image lacks 'patch', 'width', 'layers', .*Export the bundle again"):
        load(tiny_bundle)

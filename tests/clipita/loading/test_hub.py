"""Names to folders, against a stand-in for the hub on this machine: the loading code is the real one."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.hub_stand_in import COMMIT, Hub

from clipita.bundles.bundle import read_bundle
from clipita.errors import CheckpointError, ModelNotFoundError
from clipita.loading import hub
from clipita.loading.hub import resolve
from clipita.loading.known import KNOWN

pytestmark = pytest.mark.slow

NEWER = "abcdef0123" * 4

# Resolves each of the calls given as JSON, in order, and prints a folder or the error of each.
CLIENT = """
import json, sys, time
from clipita.errors import ClipitaError
from clipita.loading.hub import resolve
time.sleep = lambda seconds: None  # between its attempts the hub's library waits up to 23 s
results = []
for name, options in json.loads(sys.argv[1]):
    try:
        results.append(str(resolve(name, **options)))
    except ClipitaError as error:
        results.append(f"{type(error).__name__}: {error}")
print(json.dumps(results))
"""


@pytest.fixture
def stand_in(shared_bundle: Path) -> Iterator[Hub]:
    made = Hub()
    made.repositories["prova/tiny"] = {COMMIT: shared_bundle}
    yield made
    made.server.shutdown()
    made.server.server_close()


def resolve_there(stand_in: Hub, home: Path, *calls: tuple[str, dict[str, Any]], **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, json.dumps(calls)],
        env=stand_in.environment(home, **environment),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_a_bundle_is_fetched_once_and_then_used_without_a_connection(
    stand_in: Hub, shared_bundle: Path, tmp_path: Path
) -> None:
    (first,) = resolve_there(stand_in, tmp_path, ("prova/tiny", {}))
    assert read_bundle(first).files == read_bundle(shared_bundle).files
    assert Path(first).name == COMMIT

    stand_in.requests.clear()
    again = resolve_there(
        stand_in,
        tmp_path,
        ("prova/tiny", {}),
        ("prova/tiny", {"local_files_only": True}),
        ("prova/tiny", {"revision": "main"}),
        ("prova/tiny", {"revision": COMMIT}),
    )
    assert again == [first] * 4
    assert stand_in.requests == []


def test_only_the_files_of_the_bundle_are_fetched(stand_in: Hub, shared_bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(shared_bundle, tmp_path / "with-more")
    (folder / "pytorch_model.bin").write_bytes(b"large")
    (folder / "other.onnx").write_bytes(b"large")
    stand_in.repositories["prova/more"] = {COMMIT: folder}
    (found,) = resolve_there(stand_in, tmp_path, ("prova/more", {"cache_dir": str(tmp_path / "cache")}))
    assert Path(found).is_relative_to(tmp_path / "cache")
    assert sorted(path.name for path in Path(found).iterdir()) == sorted(path.name for path in shared_bundle.iterdir())


def test_a_broken_download_is_completed(stand_in: Hub, tmp_path: Path) -> None:
    (folder,) = resolve_there(stand_in, tmp_path, ("prova/tiny", {}))
    (Path(folder) / "weights.safetensors").unlink()
    here, completed = resolve_there(stand_in, tmp_path, ("prova/tiny", {"local_files_only": True}), ("prova/tiny", {}))
    assert here.startswith("ModelNotFoundError: 'prova/tiny' is not on this machine")
    assert read_bundle(completed).config.name == "tiny"


def test_a_revision_is_its_own_snapshot(stand_in: Hub, shared_bundle: Path, tmp_path: Path) -> None:
    stand_in.repositories["prova/tiny"][NEWER] = shared_bundle
    old, new, none = resolve_there(
        stand_in,
        tmp_path,
        ("prova/tiny", {}),
        ("prova/tiny", {"revision": NEWER}),
        ("prova/tiny", {"revision": "v9"}),
    )
    assert (Path(old).name, Path(new).name) == (COMMIT, NEWER)
    assert none == "ModelNotFoundError: 'prova/tiny' has no revision 'v9' on the hub."


def test_the_branch_may_move_between_two_requests(stand_in: Hub, shared_bundle: Path, tmp_path: Path) -> None:
    stand_in.repositories["prova/tiny"][NEWER] = tmp_path / "not to be read"
    answer = stand_in.answer

    def moving(path: str) -> tuple[int, dict[str, str], bytes]:
        if "/resolve/" in path and not path.endswith("clipita.json"):
            stand_in.heads["main"] = NEWER
        return answer(path)

    stand_in.answer = moving  # type: ignore[method-assign]
    (folder,) = resolve_there(stand_in, tmp_path, ("prova/tiny", {}))
    assert stand_in.heads["main"] == NEWER
    assert read_bundle(folder).config.name == "tiny"
    assert Path(folder).name == COMMIT


def test_what_the_hub_does_not_have_is_said_plainly(stand_in: Hub, shared_bundle: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text("{}")
    stand_in.repositories["prova/transformers"] = {COMMIT: foreign}
    partial = shutil.copytree(shared_bundle, tmp_path / "partial")
    (partial / "text.onnx").unlink()
    stand_in.repositories["prova/partial"] = {COMMIT: partial}
    results = resolve_there(
        stand_in,
        tmp_path,
        ("prova/nessuno", {}),
        ("prova/transformers", {}),
        ("prova/partial", {}),
        ("gated/model", {}),
        ("prova/altro", {"local_files_only": True}),
    )
    for found, expected in zip(
        results,
        [
            "ModelNotFoundError: there is no model 'prova/nessuno': neither a folder here nor",
            "CheckpointError: 'prova/transformers' is on the hub, but it holds nothing that clipita loads: neither a "
            "bundle (clipita.json) nor a checkpoint (config.json or open_clip_config.json with model.safetensors, ",
            "CheckpointError: 'prova/partial' is incomplete on the hub",
            "ModelNotFoundError: 'gated/model' is open only to those who accepted its terms",
            "ModelNotFoundError: 'prova/altro' is not on this machine, and local_files_only=True forbids to fetch it",
        ],
        strict=True,
    ):
        assert found.startswith(expected)


def test_a_hub_that_cannot_be_reached_is_said_plainly(stand_in: Hub, tmp_path: Path) -> None:
    unreachable = "ModelNotFoundError: 'prova/tiny' is not on this machine, and the hub could not be reached ("
    (refused,) = resolve_there(stand_in, tmp_path, ("prova/tiny", {}), HF_ENDPOINT="http://127.0.0.1:9")
    assert refused.startswith(unreachable)
    (offline,) = resolve_there(stand_in, tmp_path, ("prova/tiny", {}), HF_HUB_OFFLINE="1")
    assert offline.startswith(unreachable)
    assert not [request for request in stand_in.requests if "/resolve/" in request]
    (broken,) = resolve_there(stand_in, tmp_path, ("broken/tiny", {}))
    assert broken.startswith(unreachable.replace("prova", "broken"))


def repository(folder: Path, *files: str, **contents: object) -> Path:
    """A folder with these files, whose contents are their names, or JSON."""
    folder.mkdir()
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{"model_type": "clip"}' if name == "config.json" else f"contents of {name}")
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def files_below(folder: str | Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


SMALL_FILES = ["README.md", "config.json", "preprocessor_config.json", "tokenizer.json"]


def test_of_a_checkpoint_one_set_of_weights_is_fetched_and_no_other_file(stand_in: Hub, tmp_path: Path) -> None:
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    unwanted = ["tf_model.h5", "vocab.txt", "merges.txt", "optimizer.pt", "samples/foto.jpg", "onnx/vision_model.onnx"]
    weights = ["pytorch_model.bin", "flax_model.msgpack", "onnx/text_model.onnx", "model.safetensors"]
    index = "model.safetensors.index"
    tokens = ["config.json", "tokenizer_config.json", "vocab.txt"]
    modules = [{"path": ""}, {"path": "1_Pooling"}, {"path": "2_Dense"}]
    dense = ["1_Pooling/config.json", "2_Dense/config.json", "2_Dense/pytorch_model.bin"]
    open_clip = ["open_clip_config.json", "open_clip_pytorch_model.bin"]
    exports = ["onnx/vision_model_quantized.onnx", "onnx/text_model_quantized.onnx"]
    variants = [f"onnx/{tower}_model{suffix}.onnx" for tower in ("vision", "text") for suffix in ("", "_fp16", "_q4")]
    repositories: dict[str, tuple[Path, list[str]]] = {
        "all": (repository(tmp_path / "a", *SMALL_FILES, *unwanted, *weights), [*SMALL_FILES, "model.safetensors"]),
        "flax": (repository(tmp_path / "b", *SMALL_FILES, *weights[1:3]), [*SMALL_FILES, "flax_model.msgpack"]),
        "sharded": (
            repository(
                tmp_path / "c",
                *tokens,
                *shards,
                weights[0],
                **{index: {"weight_map": {"x": shards[0], "y": shards[1], "z": shards[0]}}},
            ),
            [*tokens, *shards, f"{index}.json"],
        ),
        "open_clip": (
            repository(tmp_path / "d", *open_clip, *SMALL_FILES, *weights, config={"model_type": "nllb-siglip"}),
            [*open_clip, *SMALL_FILES],
        ),
        "both": (
            repository(tmp_path / "g", *open_clip, *SMALL_FILES, *weights[:2]),
            [open_clip[0], *SMALL_FILES, "pytorch_model.bin"],
        ),
        "called-clip": (
            repository(tmp_path / "h", *open_clip, *SMALL_FILES),
            [*open_clip, *SMALL_FILES],
        ),
        "sentences": (
            repository(tmp_path / "e", *tokens, *weights, *dense, "1_Pooling/model.safetensors", modules=modules),
            [*tokens, "modules.json", "model.safetensors", *dense],
        ),
        "exports": (
            repository(tmp_path / "f", *SMALL_FILES, *exports, *variants, f"{exports[0]}_data"),
            [*SMALL_FILES, *exports, f"{exports[0]}_data"],
        ),
    }
    for name, (folder, _) in repositories.items():
        stand_in.repositories[f"prova/{name}"] = {COMMIT: folder}
    calls: list[tuple[str, dict[str, Any]]] = [(f"prova/{name}", {"precision": "int8"}) for name in repositories]
    found = resolve_there(stand_in, tmp_path, *calls)
    for folder, (_, expected) in zip(found, repositories.values(), strict=True):
        assert files_below(folder) == sorted(expected)

    stand_in.requests.clear()
    assert resolve_there(stand_in, tmp_path, *calls) == found
    assert stand_in.requests == []
    assert resolve_there(stand_in, tmp_path, *calls, HF_HUB_OFFLINE="1") == found


def test_names_in_a_checkpoint_do_not_lead_out_of_it(stand_in: Hub, tmp_path: Path) -> None:
    index = "model.safetensors.index"
    stand_in.repositories["prova/a"] = {
        COMMIT: repository(tmp_path / "a", *SMALL_FILES, **{index: {"weight_map": {"x": "../../x.safetensors"}}})
    }
    stand_in.repositories["prova/b"] = {COMMIT: repository(tmp_path / "b", modules=[{"path": "/etc"}])}
    stand_in.repositories["prova/c"] = {COMMIT: repository(tmp_path / "c", modules={"path": "x"})}
    stand_in.repositories["prova/d"] = {
        COMMIT: repository(tmp_path / "d", *SMALL_FILES, **{index: {"weight_map": {"x": "x.safetensors"}}})
    }
    shards, *modules, absent = resolve_there(stand_in, tmp_path, *((f"prova/{name}", {}) for name in "abcd"))
    assert "is no index of shards: its 'weight_map' must give a file for each name" in shards
    assert all("must list folders below its own, but it has" in found for found in modules)
    assert absent.startswith("CheckpointError: 'prova/d' is incomplete on the hub: it names a file 'x.safetensors'")


def test_what_another_library_left_in_the_cache_is_used_without_the_hub(stand_in: Hub, tmp_path: Path) -> None:
    stand_in.repositories["prova/a"] = {COMMIT: repository(tmp_path / "a", *SMALL_FILES, "model.safetensors")}
    (folder,) = resolve_there(stand_in, tmp_path, ("prova/a", {}))
    shutil.rmtree(Path(folder).parent.parent / ".no_exist")  # it has not asked for what is not there
    for environment in ({"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}):
        assert resolve_there(stand_in, tmp_path, ("prova/a", {}), **environment) == [folder]
    assert resolve_there(stand_in, tmp_path, ("prova/a", {"local_files_only": True})) == [folder]


def test_blobs_that_repositories_share_are_read(stand_in: Hub, tmp_path: Path) -> None:
    (folder,) = resolve_there(stand_in, tmp_path, ("prova/tiny", {}))
    shared = tmp_path / "hub" / "blobs" / "ab"  # as huggingface_hub 2 keeps large files
    shared.mkdir(parents=True)
    blob = (Path(folder) / "weights.safetensors").resolve()
    blob.rename(shared / "abcdef")
    blob.symlink_to(shared / "abcdef")
    assert read_bundle(folder).config.name == "tiny"
    blob.unlink()
    blob.symlink_to((shared / "abcdef").rename(tmp_path / "elsewhere"))
    with pytest.raises(CheckpointError, match="outside its folder"):
        read_bundle(folder)


@pytest.mark.parametrize(
    ("troubles", "error"),
    [
        (["is cut", "is cut"], None),
        (["stalls"], None),
        (["lies about its size"], None),
        (["is damaged"], None),
        (["is damaged", "is damaged"], "CheckpointError: 'model.safetensors' of 'prova/a' came damaged twice"),
        (["fails"], "ModelNotFoundError: 'prova/a' is not on this machine, and the hub could not be reached"),
    ],
)
def test_downloads_that_go_wrong_are_noticed_and_fetched_again(
    stand_in: Hub, tmp_path: Path, troubles: list[str], error: str | None
) -> None:
    source = repository(tmp_path / "a", *SMALL_FILES)
    (source / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    stand_in.repositories["prova/a"] = {COMMIT: source}
    stand_in.troubles["model.safetensors"] = troubles
    call: tuple[str, dict[str, Any]] = ("prova/a", {})
    found = resolve_there(stand_in, tmp_path, call, *([call] if error else []), HF_HUB_DOWNLOAD_TIMEOUT="1")
    if error:
        assert found[0].startswith(error)
    assert stand_in.troubles["model.safetensors"] == []
    weights = Path(found[-1]) / "model.safetensors"
    assert weights.read_bytes() == (source / "model.safetensors").read_bytes()


def test_tokens_and_proxies_are_those_of_the_hubs_library(stand_in: Hub, tmp_path: Path) -> None:
    stand_in.repositories["private/a"] = {COMMIT: repository(tmp_path / "a", *SMALL_FILES, "model.safetensors")}
    stand_in.token = "hf_segreto"
    (refused,) = resolve_there(stand_in, tmp_path / "1", ("private/a", {}))
    assert refused.startswith("ModelNotFoundError: there is no model 'private/a'")
    assert refused.endswith("If it is private: hf auth login")
    proxy = {"HF_ENDPOINT": "http://hub.invalid", "HTTP_PROXY": stand_in.address, "NO_PROXY": ""}
    (found,) = resolve_there(stand_in, tmp_path / "2", ("private/a", {}), HF_TOKEN="hf_segreto", **proxy)
    assert files_below(found) == sorted([*SMALL_FILES, "model.safetensors"])


def test_a_name_that_the_hub_does_not_know_comes_with_those_that_it_does(stand_in: Hub, tmp_path: Path) -> None:
    found = resolve_there(
        stand_in, tmp_path, ("clip-italian/clip-itallian", {}), ("google/clip-vit-base-patch32", {}), ("a/b", {})
    )
    assert "Did you mean 'clip-italian/clip-italian'?" in found[0]
    assert "Did you mean 'openai/clip-vit-base-patch32'?" in found[1]
    assert "Did you mean" not in found[2]
    assert all(model.name in found[2] for model in KNOWN)


@pytest.fixture
def embedded(shared_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(hub, "EMBEDDED", tmp_path / "models")
    return shutil.copytree(shared_bundle, tmp_path / "models" / "clipita-mini")


def test_an_embedded_name_comes_before_a_folder(
    embedded: Path, shared_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(shared_bundle, tmp_path / "clipita-mini")
    assert resolve("clipita-mini") == embedded
    assert resolve("./clipita-mini") == Path("clipita-mini")
    assert resolve(Path("clipita-mini")) == Path("clipita-mini")
    (tmp_path / "prova").mkdir()
    assert resolve("prova") == Path("prova")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/prova") == tmp_path / "prova"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("clipita-mni", {}, r"there is no model 'clipita-mni'.*Did you mean 'clipita-mini'\?.*called 'owner/name'"),
        ("", {}, "there is no model ''"),
        ("./assente", {}, r"there is no model './assente': no folder has this name"),
        ("../clipita-mini", {}, r"there is no model '../clipita-mini'"),
        ("/nowhere/at/all", {}, "there is no model '/nowhere/at/all'"),
        (Path("owner/name"), {}, "there is no model 'owner/name': no folder"),
        ("a/b/c", {}, "there is no model 'a/b/c'"),
        ("a b/c", {}, "there is no model 'a b/c'"),
        ("https://huggingface.co/a/b", {}, "is an address. Give the name alone"),
        (__file__, {}, "is a file. Give the folder that it is in"),
        ("clipita-mini", {"revision": "main"}, "revision 'main' was asked for, but 'clipita-mini' is a folder here"),
    ],
)
@pytest.mark.usefixtures("embedded")
def test_names_that_lead_nowhere(name: str | Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(ModelNotFoundError, match=message):
        resolve(name, **options)  # type: ignore[arg-type]

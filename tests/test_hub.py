"""Names to folders, against a stand-in for the hub on this machine: the loading code is the real one."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from clipita import hub
from clipita.bundle import read_bundle
from clipita.errors import ModelNotFoundError
from clipita.hub import resolve

COMMIT = "0123456789" * 4
NEWER = "abcdef0123" * 4

# Resolves each of the calls given as JSON, in order, and prints a folder or the error of each.
CLIENT = """
import json, sys, time
from clipita.errors import ClipitaError
from clipita.hub import resolve
time.sleep = lambda seconds: None  # between its attempts the hub's library waits up to 23 s
results = []
for name, options in json.loads(sys.argv[1]):
    try:
        results.append(str(resolve(name, **options)))
    except ClipitaError as error:
        results.append(f"{type(error).__name__}: {error}")
print(json.dumps(results))
"""


class Hub:
    """Serves folders as repositories, the way huggingface.co answers a download."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, Path]] = {}  # name -> branch or commit -> folder
        self.heads = {"main": COMMIT}
        self.requests: list[str] = []
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                stand_in.requests.append(f"{self.command} {self.path}")
                status, headers, body = stand_in.answer(self.path)
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        if path.startswith("/api/"):  # telemetry
            return 404, {}, b""
        owner, name, _, revision, file = path.strip("/").split("/", 4)
        if owner == "gated":
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        if owner == "broken":
            return 500, {}, b""
        folders = self.repositories.get(f"{owner}/{name}")
        if folders is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        commit = self.heads.get(revision, revision)
        if commit not in folders:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        target = folders[commit] / file
        if not target.is_file():
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b""
        body = target.read_bytes()
        return 200, {"X-Repo-Commit": commit, "ETag": f'"{hash(body):x}"'}, body


@pytest.fixture
def stand_in(shared_bundle: Path) -> Iterator[Hub]:
    made = Hub()
    made.repositories["prova/tiny"] = {COMMIT: shared_bundle}
    yield made
    made.server.shutdown()
    made.server.server_close()


def resolve_there(stand_in: Hub, home: Path, *calls: tuple[str, dict[str, Any]], **environment: str) -> list[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, json.dumps(calls)],
        env={**clean, "HF_ENDPOINT": stand_in.address, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1", **environment},
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
            "CheckpointError: 'prova/transformers' is on the hub, but it is no clipita bundle: it has no clipita.json. "
            "Bundles are the only layout that this clipita loads",
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

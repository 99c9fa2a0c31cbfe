"""A hub that means harm, or none at all: bounds in bytes, in time, and in where anything is written."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support import environment
from support.hub_stand_in import COMMIT, Hub

from clipita.loading import download as _download

pytestmark = pytest.mark.slow

# Resolves the names that are given, and prints what came of each, and the seconds that it took. argv[1] is run before.
CLIENT = """
import sys, time
from clipita.errors import ClipitaError
from clipita.loading.hub import resolve
from clipita.loading import download as _download
exec(sys.argv[1])
start = time.monotonic()
for name in sys.argv[2:]:
    try:
        print("found", resolve(name))
    except ClipitaError as error:
        print(f"{type(error).__name__}: {error}")
print(time.monotonic() - start)
"""
QUICK = "_download._PAUSE = 0.01"


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[Hub]:
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text('{"model_type": "clip"}')
    (source / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    made = Hub()
    made.repositories["prova/a"] = {COMMIT: source}
    yield made
    made.server.shutdown()
    made.server.server_close()


def client(
    environment: dict[str, str], before: str = QUICK, names: Sequence[str] = ("prova/a",)
) -> tuple[str, float, str]:
    """What came of it, the seconds, and what was written on stderr."""
    arguments = [sys.executable, "-c", CLIENT, before, *names]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True)
    outcome, seconds = done.stdout.rstrip().rsplit("\n", 1)
    return outcome, float(seconds), done.stderr


def written(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


ESCAPES = ("../../../../victim", "{}/victim", "..", ".", "a/b", "-", "x" * 300, "a\\b", "é")


def test_what_the_hub_calls_a_file_is_no_path(stand_in: Hub, tmp_path: Path) -> None:
    names: list[str] = []
    for header in ("ETag", "X-Linked-ETag", "X-Repo-Commit"):
        for escape in (text.format(tmp_path).encode().decode("latin-1") for text in ESCAPES):
            names.append(f"prova/n{len(names)}")
            stand_in.repositories[names[-1]] = stand_in.repositories["prova/a"]
            value = escape if header == "X-Repo-Commit" else f'"{escape}"'
            stand_in.headers[f"{names[-1]}/resolve/main/config.json"] = {header: value}
            # of a file that is not there
            stand_in.headers[f"{names[-1]}/resolve/main/clipita.json"] = {"X-Repo-Commit": escape}
    before = written(tmp_path)
    outcomes = client(stand_in.environment(tmp_path / "home"), names=names)[0].splitlines()
    assert len(outcomes) == len(names) == 27
    for name, outcome in zip(names, outcomes, strict=True):
        assert outcome.startswith(f"CheckpointError: the server says that 'config.json' of {name!r} is of the commit")
    new = {path.split("/", 3)[-1] for path in {*written(tmp_path)} - {*before}}
    assert new == {f".no_exist/{COMMIT}/modules.json", f".no_exist/{COMMIT}/open_clip_config.json", "refs/main"}


def test_what_is_no_hub_is_not_taken_for_one(stand_in: Hub, tmp_path: Path) -> None:
    stand_in.answer = lambda path: (200, {"Content-Type": "text/html"}, b"Welcome to our network")  # type: ignore[method-assign]
    outcome, _, _ = client(stand_in.environment(tmp_path / "home"))
    assert outcome.startswith(
        "ModelNotFoundError: 'prova/a' is not on this machine, and the hub could not be reached ("
    )
    assert "is no hub: it does not state the commit of the file" in outcome
    assert not written(tmp_path / "home")


def test_a_file_is_no_longer_than_was_said(stand_in: Hub, tmp_path: Path) -> None:
    stand_in.troubles["model.safetensors"] = ["never ends"]
    outcome, seconds, _ = client(stand_in.environment(tmp_path / "home"))
    assert outcome.startswith(
        "CheckpointError: the server sends more than the 10,240 bytes that 'model.safetensors' of 'prova/a' has."
    )
    assert seconds < 5
    assert not [name for name in written(tmp_path / "home") if "incomplete" in name]


@pytest.mark.parametrize(
    ("file", "size", "message"),
    [
        ("config.json", 1 << 40, "has 1,099,511,627,776 bytes, and files of its kind have at most 67,108,864"),
        ("model.safetensors", 1 << 50, "has 1,125,899,906,842,624 bytes, and files of its kind have at most"),
        ("model.safetensors", -5, "has -5 bytes"),
        ("model.safetensors", 120 << 30, "takes 128.85 GB, and the disk of"),
    ],
)
def test_sizes_have_bounds(stand_in: Hub, tmp_path: Path, file: str, size: int, message: str) -> None:
    stand_in.headers[file] = {"X-Linked-Size": str(size)}
    disk = "import shutil; shutil.disk_usage = lambda path: shutil._ntuple_diskusage(0, 0, 50 << 30)"
    outcome, _, _ = client(stand_in.environment(tmp_path / "home"), f"{QUICK}; {disk}")
    assert outcome.startswith("CheckpointError: ")
    assert message in outcome
    assert not [request for request in stand_in.requests if request == f"GET /prova/a/resolve/{COMMIT}/{file}"]


def test_a_server_that_always_cuts_is_left(stand_in: Hub, tmp_path: Path) -> None:
    stand_in.troubles["model.safetensors"] = ["is cut"] * 1000
    outcome, seconds, _ = client(stand_in.environment(tmp_path / "home"))
    assert "'model.safetensors' of 'prova/a' cannot be fetched: the server broke off 6 times" in outcome
    assert "last after 5,120 of 10,240 bytes" in outcome
    assert len(stand_in.troubles["model.safetensors"]) == 994
    assert seconds < 5


def test_a_server_that_dribbles_is_left(stand_in: Hub, tmp_path: Path) -> None:
    stand_in.troubles["model.safetensors"] = ["dribbles"]
    outcome, seconds, _ = client(stand_in.environment(tmp_path / "home"), f"{QUICK}; _download._WINDOW = 1.5")
    assert outcome.startswith(
        "ModelNotFoundError: 'prova/a' is not on this machine, and the hub could not be reached ("
    )
    assert "bytes came in 1.5 s" in outcome
    assert 1.5 < seconds < 5


def test_a_cut_file_goes_on_where_it_was(stand_in: Hub, tmp_path: Path) -> None:
    stand_in.ranges = True
    stand_in.troubles["model.safetensors"] = ["is cut"] * 3
    outcome, _, _ = client(stand_in.environment(tmp_path / "home"))
    assert outcome.startswith("found ")
    weights = Path(outcome.removeprefix("found ")) / "model.safetensors"
    assert weights.read_bytes() == (tmp_path / "source" / "model.safetensors").read_bytes()
    assert stand_in.asked_ranges == ["bytes=5120-", "bytes=7680-", "bytes=8960-"]


def test_without_a_network_the_error_comes_soon_and_alone(tmp_path: Path) -> None:
    with socket.socket() as listening:  # and never answers
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        silent = f"http://127.0.0.1:{listening.getsockname()[1]}"
        assert _download._FIRST_WORD <= 5
        for address in ("http://127.0.0.1:9", silent, "http://nowhere.invalid"):
            environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
            environment |= {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "NO_PROXY": "*"}
            outcome, seconds, said = client(environment, "_download._FIRST_WORD = 2")
            assert outcome.startswith("ModelNotFoundError: 'prova/a' is not on this machine, and the hub could not be")
            assert seconds < 4
            assert said == ""


# Any connection, of any library and thread, is an error that names itself.
NO_SOCKETS = """
import socket, sys
attempts = []
def audit(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        attempts.append(str(arguments))
sys.addaudithook(audit)
import atexit, clipita
atexit.register(lambda: print(*attempts) if attempts else None)
"""


@pytest.mark.parametrize("offline", [True, False])
def test_what_is_here_opens_no_connection(shared_bundle: Path, tmp_path: Path, offline: bool) -> None:
    hub = Hub()
    hub.repositories["prova/tiny"] = {COMMIT: shared_bundle}
    environment = hub.environment(tmp_path)
    fetch = "import clipita; clipita.load('prova/tiny')"
    subprocess.run([sys.executable, "-c", fetch], env=environment, check=True)
    agents = json.dumps(hub.agents)
    hub.server.shutdown()
    hub.server.server_close()
    load = f"""{NO_SOCKETS}
clipita.load("prova/tiny", local_files_only={not offline}).encode_text("un cane")
try:
    clipita.load("prova/altro", local_files_only={not offline})
except clipita.ModelNotFoundError:
    print("not here")
"""
    more = {"HF_HUB_OFFLINE": "1"} if offline else {}
    done = subprocess.run(
        [sys.executable, "-c", load], env={**environment, **more}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "not here\n"
    assert "clipita/" in agents
    assert "torch" not in agents  # the hub's library would say which one is installed


def test_a_process_may_end_while_the_hub_is_silent(tmp_path: Path) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        environment = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{listening.getsockname()[1]}"}
        start = time.monotonic()
        client({**environment, "HF_HOME": str(tmp_path), "NO_PROXY": "*"}, "_download._FIRST_WORD = 0.5")
        assert time.monotonic() - start < 5


def test_answers_at_random_are_taken_or_refused() -> None:
    command = [sys.executable, "-m", "support.fuzz_hub", "40"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["findings"] == {}
    assert found["taken"] > 5
    assert found["refused"] > 15

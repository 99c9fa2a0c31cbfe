"""On a local Ray cluster of two workers a build gives the bytes of the local pool, whatever is killed."""

import hashlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clipita_train.data.builder.build import build
from clipita_train.data.builder.runners import LocalRunner
from support import TESTS
from support.sources_of_photographs import RECIPE, write_sources

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs clipita[ray]"),
]

SCRIPT = """
import os, signal, sys
from dataclasses import dataclass
from pathlib import Path
from support.sources_of_photographs import RECIPE
from clipita_train.data.builder.build import build
from clipita_train.data.builder.runners import RayRunner


@dataclass(frozen=True)
class DiesOnce:
    task: object
    marker: Path

    @property
    def output(self):
        return self.task.output

    def run(self):
        if not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        self.task.run()


class Unlucky(RayRunner):
    "In every step the worker that has the first task is killed while it is at it."

    def __init__(self, workers, markers):
        super().__init__(workers)
        self.markers, self.step = markers, 0

    def run(self, tasks):
        self.step += 1
        first = [DiesOnce(task, self.markers / str(self.step)) for task in tasks[:1]]
        return super().run([*first, *tasks[1:]])


if __name__ == "__main__":
    root, out, markers = map(Path, sys.argv[1:])
    with Unlucky(2, markers) if markers.is_dir() else RayRunner(2) as runner:
        build(RECIPE, root, out, runner, show_progress=False)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    write_sources(folder)
    return folder


@pytest.fixture(scope="module")
def expected(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("local")
    with LocalRunner(2) as runner:
        build(RECIPE, root, out, runner, show_progress=False)
    return hashes(out)


def hashes(out: Path) -> dict[str, str]:
    """Of all files, also those that are only for the next run."""
    files = (path for path in out.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def start(root: Path, folder: Path) -> subprocess.Popen[bytes]:
    """A process that builds into `folder`/out on a cluster of its own, which ends with it."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    # Without tests/offline: to learn its own address Ray connects a socket to another machine's, and sends nothing.
    path = os.pathsep.join([str(TESTS), *(place for place in sys.path if Path(place) != TESTS / "offline")])
    environment = os.environ | {"PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, script, root, folder / "out", folder / "markers"]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, env=environment, start_new_session=True, stdout=log, stderr=log)


def test_the_cluster_gives_the_bytes_of_the_local_pool(root: Path, expected: dict[str, str], tmp_path: Path) -> None:
    assert start(root, tmp_path).wait() == 0, (tmp_path / "log").read_text()
    assert hashes(tmp_path / "out") == expected


def test_a_worker_that_is_killed_in_each_step_loses_nothing(
    root: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "markers").mkdir()
    assert start(root, tmp_path).wait() == 0, (tmp_path / "log").read_text()
    assert len(list((tmp_path / "markers").iterdir())) == 8  # read, text, images, signatures, three judges, shards
    assert hashes(tmp_path / "out") == expected


def test_a_driver_that_is_killed_loses_nothing(root: Path, expected: dict[str, str], tmp_path: Path) -> None:
    process = start(root, tmp_path)
    while not list((tmp_path / "out" / "work").glob("images-*")):
        assert process.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    done = hashes(tmp_path / "out")
    assert start(root, tmp_path).wait() == 0, (tmp_path / "log").read_text()
    assert hashes(tmp_path / "out") == expected
    assert len(done) < len(expected)

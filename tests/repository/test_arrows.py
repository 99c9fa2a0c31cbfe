"""The contracts of imports in pyproject.toml fail where they should: `./check` runs them on the code as it is."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT
from support.reference import importlinter  # noqa: F401 - skips the file where it is missing

PLANTED = {
    "clipita imports training": (
        "clipita/images/pixels.py",
        "import clipita_train.engine.config",
        "runs without training",
    ),
    "the model imports ONNX Runtime": ("clipita/model.py", "import onnxruntime", "Only the ONNX backend imports"),
    "a backend imports the other": ("clipita/backends/flax.py", "import clipita.backends.onnx", "neither knows the"),
    "images import the model": ("clipita/images/decode.py", "import clipita.model", "Clipita's rooms"),
    "loading imports a command": ("clipita/loading/hub.py", "import clipita.cli.options", "Clipita's rooms"),
    "the index imports the web": ("clipita/search/query.py", "import starlette", "Only the server imports its web"),
    "the engine imports a recipe": (
        "training/clipita_train/engine/loop.py",
        "import clipita_train.pairs.recipe",
        "Training's rooms",
    ),
    "a twin imports the other": ("training/clipita_train/pairs/run.py", "import clipita_train.concepts.run", "rooms"),
    "a circle of files": ("benchmarks/tools/measure.py", "import benchmarks.speed", "No circle of files"),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for package in ("clipita", "training", "benchmarks"):
        shutil.copytree(
            ROOT / package,
            folder / package,
            ignore=lambda _, names: [n for n in names if "." in n[1:] and not n.endswith(".py")],
        )
    return folder


def contracts(folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder), str(folder / "training")])
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    return subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_wrong_import_breaks_a_contract(copy: Path, what: str) -> None:
    file, statement, contract = PLANTED[what]
    path = copy / file
    before = path.read_text()
    path.write_text(f"{before}\n\ndef _planted() -> None:\n    {statement}\n")
    try:
        done = contracts(copy)
    finally:
        path.write_text(before)
    assert done.returncode == 1, done.stdout
    broken = " ".join(done.stdout.split("Broken contracts")[1].split())
    assert contract in broken, done.stdout


def test_without_it_all_are_kept(copy: Path) -> None:
    done = contracts(copy)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout

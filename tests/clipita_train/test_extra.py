import subprocess
import sys
import tomllib

import pytest
from support import ROOT

import clipita

pytestmark = pytest.mark.slow


def import_training(preparation):
    code = f"import sys, importlib.util as u; {preparation}; import clipita_train; print(sorted(sys.modules))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_without_the_extra_the_error_says_what_to_install():
    hide = "find = u.find_spec; u.find_spec = lambda name: None if name in ('optax', 'orbax') else find(name)"
    result = import_training(hide)
    assert result.returncode == 1
    assert "training needs its extra: pip install 'clipita[train]' (not found: optax, orbax)" in result.stderr


def test_with_the_extra_the_import_is_cheap():
    result = import_training("pass")
    assert "'clipita_train'" in result.stdout
    assert "'jax'" not in result.stdout


def clipita_train(preparation, *arguments):
    code = f"import sys, importlib.util as u; {preparation}; from clipita.cli.train import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("missing", ["optax", "orbax", "grain", "scipy", "msgpack"])
def test_the_command_says_on_one_line_what_to_install(missing, tmp_path):
    """Some of them it would need at once, some only for what it is asked to do, and each is said the same way."""
    (tmp_path / "ricetta.py").write_text(f"import {missing}\n")
    result = clipita_train(f"sys.modules[{missing!r}] = None", "run", str(tmp_path / "ricetta.py"))
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert missing in line
    assert "pip install 'clipita[train]'" in line


def test_an_import_that_fails_in_our_own_code_is_not_hidden():
    broken = "sys.modules['clipita_train.losses.contrastive'] = None"
    result = clipita_train(broken, "--help")
    assert result.returncode == 1
    assert "ModuleNotFoundError: import of clipita_train.losses.contrastive halted" in result.stderr


def test_the_script_begins_there():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["clipita-train"] == "clipita.cli.train:main"
    result = clipita_train("pass", "--version")
    assert (result.returncode, result.stdout.split()[-1]) == (0, clipita.__version__)

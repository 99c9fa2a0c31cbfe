import subprocess
import sys


def import_training(preparation):
    code = f"import sys, importlib.util as u; {preparation}; import training; print(sorted(sys.modules))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_without_the_extra_the_error_says_what_to_install():
    hide = "find = u.find_spec; u.find_spec = lambda name: None if name in ('optax', 'orbax') else find(name)"
    result = import_training(hide)
    assert result.returncode == 1
    assert "training needs its extra: pip install clipita[train] (not found: optax, orbax)" in result.stderr


def test_with_the_extra_the_import_is_cheap():
    result = import_training("pass")
    assert "'training'" in result.stdout
    assert "'jax'" not in result.stdout

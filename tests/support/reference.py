"""Hand out the libraries that only some tests need: `from support.reference import torch`.

A file that asks for one that is not installed is skipped, and says what to install. With `pytest --fast` the files that
compare with a large one are skipped too: PyTorch and transformers take longer to import than all else.
"""

from types import ModuleType

import pytest

LARGE = {"torch", "transformers"}
left_out: set[str] = set()  # what `pytest --fast` leaves out; tests/conftest.py fills it


def __getattr__(name: str) -> ModuleType:
    if name.startswith("__"):
        raise AttributeError(name)
    if name in left_out:
        pytest.skip(f"compares with {name}, which the fast check leaves out", allow_module_level=True)
    return pytest.importorskip(name, reason=f"needs {name}: pip install --editable '.[test]'")

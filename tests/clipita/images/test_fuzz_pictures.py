"""A short run of the fuzzer of pictures with fixed seeds."""

import json
import subprocess
import sys

import pytest
from support import TESTS
from support.fuzz_pictures import formats
from support.hostile_pictures import as_tower

FORMATS = formats()
# In a process of its own: it forks, which one that other tests have filled with threads must not.
FUZZ = """
import json, sys
sys.path.insert(0, sys.argv[1])
from PIL import Image
from support.fuzz_pictures import formats, fuzz
Image.init()
print(json.dumps({name: fuzz(form, range(1, 81)) for name, form in formats().items()}))
"""


@pytest.mark.parametrize("name", FORMATS)
def test_good_pictures_are_read(name: str) -> None:
    for data in FORMATS[name].seeds:
        if not data.startswith(b"Pf"):  # floating-point values
            assert as_tower(data) is not None


@pytest.mark.slow
def test_damaged_pictures_are_read_or_refused() -> None:
    arguments = [sys.executable, "-c", FUZZ, str(TESTS)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    for name, (totals, findings) in json.loads(done.stdout).items():
        assert findings == {}, name
        assert totals["read"] + totals["refused"] == 80
        assert totals["refused"] > 20
        assert totals["read"] > 3

"""A short run of the fuzzer with fixed seeds, and the seeds that once found something."""

import json
import subprocess
import sys

import pytest
from support import TESTS
from support.fuzz_readers import Format, attempt, folder_for, formats

FORMATS = formats()
# In a process of its own: it forks, which one that other tests have filled with threads must not.
FUZZ = """
import json, sys
sys.path.insert(0, sys.argv[1])
from support.fuzz_readers import folder_for, formats, fuzz
form = formats()[sys.argv[2]]
with folder_for(form) as folder:
    print(json.dumps(fuzz(form, iter(range(1, int(sys.argv[3]) + 1)), folder)))
"""
FOUND = [("SentencePiece", 228), ("SentencePiece", 1187311), ("ONNX", 134), ("its structure", 695)]


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_good_files_are_read(form: Format) -> None:
    for seed in form.seeds:
        with folder_for(form) as folder:
            assert attempt(form, folder, form.pack(seed)) == "read"


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_are_read_or_refused(name: str) -> None:
    # A graph that is whole goes through ONNX Runtime, which takes 10 ms.
    inputs = 300 if FORMATS[name].reworked else 1500
    arguments = [sys.executable, "-c", FUZZ, str(TESTS), name, str(inputs)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    counts, findings = json.loads(done.stdout)
    assert findings == {}
    assert counts["read"] + counts["refused"] == inputs
    assert counts["refused"] > inputs * 2 / 3
    assert counts["read"] > 10


@pytest.mark.parametrize(("name", "seed"), FOUND)
def test_what_was_found_stays_mended(name: str, seed: int) -> None:
    form = FORMATS[name]
    with folder_for(form) as folder:
        assert attempt(form, folder, form.content(seed)) in ("read", "refused")

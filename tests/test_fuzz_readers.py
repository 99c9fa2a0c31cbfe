"""A short run of the fuzzer with fixed seeds, and the seeds that once found something."""

import random

import pytest
from fuzz_readers import Format, attempt, damaged, folder_for, formats, fuzz

FORMATS = formats()
FOUND = [("SentencePiece", 228), ("SentencePiece", 1187311), ("ONNX", 134), ("its structure", 695)]


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_good_files_are_read(form: Format) -> None:
    for seed in form.seeds:
        with folder_for(form) as folder:
            assert attempt(form, folder, form.pack(seed)) == "read"


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_damaged_files_are_read_or_refused(form: Format) -> None:
    with folder_for(form) as folder:
        counts, findings = fuzz(form, iter(range(1, 1501)), folder)
    assert findings == {}
    assert counts["read"] + counts["refused"] == 1500
    assert counts["refused"] > 1000
    assert counts["read"] > 10


@pytest.mark.parametrize(("name", "seed"), FOUND)
def test_what_was_found_stays_mended(name: str, seed: int) -> None:
    form = FORMATS[name]
    with folder_for(form) as folder:
        assert attempt(form, folder, form.pack(damaged(form.seeds, random.Random(seed)))) in ("read", "refused")

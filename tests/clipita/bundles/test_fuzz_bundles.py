"""Manifests, model cards and graphs that are damaged at random: read, or refused by an error of ours, and soon.

For a long run of all of them: `CLIPITA_FUZZ=20000 pytest tests/test_fuzz_bundles.py`. Graphs are in `fuzz_readers.py`.
"""

import contextlib
import copy
import json
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.tiny import make_tiny_bundle
from support.tiny_bundle import SIZE

import clipita
from clipita.bundles.bundle import MANIFEST, read_bundle
from clipita.convert.folder.model_card import license_of
from clipita.errors import BackendError, CheckpointError
from clipita.towers.config import DualConfig
from clipita.towers.shapes import parameter_shapes

EXAMPLES = int(os.environ.get("CLIPITA_FUZZ", "0"))
MAX_SECONDS = 2.0
FIXTURES = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
FUZZ = settings(derandomize=not EXAMPLES, max_examples=EXAMPLES or 150, database=None, suppress_health_check=FIXTURES)

NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 2, 7, 255, 2**16, 2**31, 2**40, 2**63, 2**64, 10**400, 0.0, -0.0, 0.5, 1e-300, 1e300]),
    st.sampled_from([float("nan"), float("inf"), -float("inf"), True, False]),
    st.integers(),
    st.floats(),
)
TEXTS = st.one_of(
    st.sampled_from(
        ["", "{}", "{}{}", "{", "../x", "/etc/passwd", "\0", "\ud800", "è", "image.onnx", "tokenizer.json"]
    ),
    st.sampled_from(["clipita.json", "bert", "vit", "clip-text", "onnx", "efficientnet-lite", "0" * 64, "mean"]),
    st.text(max_size=30),
    st.builds(lambda text, times: text * times, st.text(min_size=1, max_size=3), st.sampled_from([300, 2000, 100_000])),
)
VALUES = st.recursive(
    st.none() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where in a manifest something stands: the keys that lead there."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in inner for found in places(item, (*path, key)))]


@st.composite
def manifests(draw: st.DrawFn, good: dict[str, Any]) -> bytes:
    """`good`, with one to three values of it replaced, gone, or beside another."""
    changed: Any = copy.deepcopy(good)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        path = draw(st.sampled_from(places(changed)))
        parent = changed
        for key in path[:-1]:
            parent = parent[key]
        if not path:
            changed = draw(VALUES) if draw(st.integers(0, 9)) == 0 else changed
        elif draw(st.integers(0, 4)) == 0:
            del parent[path[-1]]
        elif isinstance(parent, dict) and draw(st.integers(0, 4)) == 0:
            parent[draw(TEXTS)] = draw(VALUES)
        else:
            parent[path[-1]] = draw(VALUES)
        if not isinstance(changed, dict):
            break
    return json.dumps(changed).encode()


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """A gigabyte more than the process has: what asks for more gets a MemoryError, which is no error of ours."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, ((int(line.split()[1]) << 10) + (1 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, before)


@contextlib.contextmanager
def in_time() -> Any:
    start = time.perf_counter()
    with contextlib.suppress(CheckpointError, BackendError):
        yield
    assert time.perf_counter() - start < MAX_SECONDS


@pytest.fixture(scope="module")
def dual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of towers that both backends know."""
    return make_tiny_bundle(tmp_path_factory.mktemp("dual") / "tiny", "float32").folder


def test_manifests(tiny_bundle: Path) -> None:
    good = json.loads((tiny_bundle / MANIFEST).read_text())
    worked = 0

    @FUZZ
    @given(manifests(good))
    def check(content: bytes) -> None:
        nonlocal worked
        (tiny_bundle / MANIFEST).write_bytes(content)
        with in_time():
            model = clipita.load(tiny_bundle, threads=1)
            model.encode_text("un cane")
            model.encode_image(np.zeros((9, SIZE, 3), np.uint8))
            model.zero_shot(np.zeros((9, SIZE, 3), np.uint8), ["cane", "gatto"])
            worked += 1

    check()
    assert worked > 5


def test_manifests_of_towers(dual: Path) -> None:
    good = json.loads((dual / MANIFEST).read_text())
    worked = 0

    @FUZZ
    @given(manifests({key: good[key] for key in ("image", "text", "image_projection", "text_projection", "embed_dim")}))
    def check(content: bytes) -> None:
        nonlocal worked
        changed = json.loads(content)
        if not isinstance(changed, dict):
            return
        (dual / MANIFEST).write_text(json.dumps({**good, **changed}))
        with in_time():
            config = DualConfig.from_bundle(read_bundle(dual).config)
            worked += sum(map(np.prod, parameter_shapes(config).values())) > 0

    check()
    assert worked > 5


PARTS = st.sampled_from(
    ["---", "\n", "\r\n", "license", "license_name", ":", " ", "\t", "- ", "other", "mit", "#", "'", "["]
)


@FUZZ
@given(st.lists(st.tuples(PARTS | st.text(max_size=9), st.sampled_from([1, 1, 1, 2, 1000, 100_000])), max_size=12))
def test_model_cards(tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[str, int]]) -> None:
    folder = tmp_path_factory.getbasetemp()
    text = "---\n" + "".join(part * times for part, times in parts)
    (folder / "README.md").write_bytes(text.encode(errors="surrogatepass"))
    with in_time():
        found = license_of(folder)
        assert found is None or 0 < len(found) <= 200

"""Every layout, on both backends and on plain ONNX operators, against the library that wrote it.

`pytest -s tests/test_convert_parity.py` prints the largest differences.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.oracles import ORACLES, Oracle, pixels, texts
from support.tiny import tiny_tokenizer

from clipita.backends.flax import FlaxBackend
from clipita.backends.onnx import OnnxBackend
from clipita.bundles.bundle import Bundle
from clipita.convert.export import Provenance, Storage, write_dual_bundle
from clipita.convert.fidelity import Encoder
from clipita.convert.layouts.checkpoint import read_dual
from clipita.text.tokenizer import TokenizerConfig
from clipita.towers.config import DualConfig

pytestmark = pytest.mark.slow

BACKENDS = ("onnx", "portable", "flax")
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def differences() -> Iterator[dict[str, dict[str, float]]]:
    """Layout -> backend -> largest difference; printed at the end."""
    table: dict[str, dict[str, float]] = {}
    yield table
    print("\n\n| layout | " + " | ".join(BACKENDS) + " |\n|---|" + "---|" * len(BACKENDS))
    for layout, found in table.items():
        print(f"| {layout} | " + " | ".join(f"{found.get(name, float('nan')):.1e}" for name in BACKENDS) + " |")


def bundle_of(oracle: Oracle, folder: Path, *, portable: bool = False) -> Bundle:
    read = read_dual(oracle.folder, images=oracle.images)
    folder.mkdir()
    (folder / "source.json").write_text(tiny_tokenizer(), encoding="utf-8")
    return write_dual_bundle(
        folder,
        read.weights,
        read.config,
        provenance=Provenance("tiny", "MIT", "random numbers", "0"),
        tokenizer=TokenizerConfig(max_tokens=16),
        tokenizer_file=folder / "source.json",
        logit_scale=read.logit_scale,
        logit_bias=read.logit_bias,
        storage=Storage(portable=portable),
    )


@pytest.mark.parametrize("layout", ORACLES)
def test_equals_the_library(layout: str, tmp_path: Path, differences: dict[str, dict[str, float]]) -> None:
    oracle = ORACLES[layout](tmp_path / "checkpoint")
    bundle, portable = bundle_of(oracle, tmp_path / "bundle"), bundle_of(oracle, tmp_path / "portable", portable=True)
    config = DualConfig.from_bundle(bundle.config)
    assert config == read_dual(oracle.folder, images=oracle.images).config
    assert bundle.config.logit_scale == pytest.approx(oracle.logit_scale, rel=1e-6)
    assert bundle.config.logit_bias == (oracle.logit_bias and pytest.approx(oracle.logit_bias, rel=1e-6))
    for name in ("image.onnx", "text.onnx"):
        onnx.checker.check_model(str(bundle.path(name)))
        onnx.checker.check_model(str(portable.path(name)), full_check=True)
        assert {node.domain for node in onnx.load(portable.path(name), load_external_data=False).graph.node} == {""}

    backends: dict[str, Encoder] = {
        "onnx": OnnxBackend(bundle, precision="fp32", threads=1),
        "portable": OnnxBackend(portable, precision="fp32", threads=1),
        "flax": FlaxBackend(bundle, precision="fp32"),
    }
    found = differences.setdefault(layout, dict.fromkeys(BACKENDS, 0.0))
    for batch in (1, 7):
        images, (ids, mask) = pixels(batch, seed=batch), texts(oracle, batch, seed=batch)
        expected = oracle.image(images), oracle.text(ids, mask)
        assert batch == 1 or all(np.abs(rows[0] - rows[1:]).max() > 1e-2 for rows in expected)  # inputs matter
        for name, backend in backends.items():
            for ours, theirs in zip(
                (backend.encode_pixels(images), backend.encode_tokens(ids, mask)), expected, strict=True
            ):
                assert ours.shape == theirs.shape
                assert ours.dtype == np.float32
                found[name] = max(found[name], float(np.abs(ours - theirs).max()))
    assert max(found.values()) < TOLERANCE

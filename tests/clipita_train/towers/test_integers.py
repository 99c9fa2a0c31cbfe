"""The command that has a bundle's convolutions computed in integers."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from clipita_train.cli import main
from clipita_train.towers import integers
from PIL import Image
from support.tiny import make_tiny_bundle

from clipita.bundles.bundle import read_bundle
from clipita.convert.samples import pictures


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for index, picture in enumerate(pictures(48, 40)):
        Image.fromarray(picture).save(folder / f"{index}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def test_writes_a_bundle_and_says_how_near_it_is(tmp_path: Path, photographs: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "float", "int4")
    arguments = [str(bundle.folder), "--photographs", str(photographs), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, ["quantize", *arguments])
    assert result.exit_code == 0, result.output
    assert "cosine to float32 0.99" in result.output
    assert "image.head.input_range" in (tmp_path / "out" / "weights.safetensors").read_bytes()[:100_000].decode(
        "latin1"
    )
    assert read_bundle(tmp_path / "out").config.license == bundle.config.license


def test_refuses_too_few_photographs_and_too_large_a_loss(
    tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_tiny_bundle(tmp_path / "float", "int4")
    files = sorted(photographs.iterdir())
    with pytest.raises(ValueError, match="20 of the 20 photographs can be read"):
        integers.in_integers(bundle, files[:20], tmp_path / "out")
    monkeypatch.setattr(integers, "LEAST_COSINE", 1.1)
    with pytest.raises(ValueError, match=r"a mean cosine of 0\.99"):
        integers.in_integers(bundle, files, tmp_path / "out")

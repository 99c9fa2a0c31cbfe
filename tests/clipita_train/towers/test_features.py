"""Cached features of locked towers: right, made once, and made again where a file is damaged."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from clipita_train.engine.files import PARTIAL
from clipita_train.towers import features
from clipita_train.towers.features import (
    LockedTower,
    image_features,
    locked_image_tower,
    locked_text_tower,
    text_features,
)
from flax import nnx
from PIL import Image
from support.tiny import CONFIG, FORMATS, tiny_table, tiny_tokenizer

from clipita.convert.layouts.efficientnet_lite import fold_batch_norm
from clipita.convert.weights.quantize import dequantize, quantize
from clipita.images.pixels import load_pixels
from clipita.system.arrays import Array
from clipita.text.tokenizer import Tokenizer, TokenizerConfig
from clipita.towers.dual import DualEncoder
from clipita.towers.parameters import set_parameters

pytestmark = pytest.mark.slow

STORED = quantize(fold_batch_norm(tiny_table()), FORMATS["float32"])
TEXTS = ["un cane", "un gatto nero", "una foto di un gatto", "un cane", "perché"]
IMAGE_WIDTH, TEXT_WIDTH = CONFIG.image.features, CONFIG.text.features


class Counted:
    """A tower that knows how many rows it has been asked for, and can be told to break down."""

    def __init__(self, tower: LockedTower) -> None:
        self.tower, self.fingerprint, self.shape = tower, tower.fingerprint, tower.shape
        self.rows, self.limit = 0, 10**9

    def __call__(self, **inputs: Array) -> Array:
        self.rows += len(next(iter(inputs.values())))
        if self.rows > self.limit:
            raise KeyboardInterrupt
        return self.tower(**inputs)


@pytest.fixture(scope="module")
def image_tower() -> LockedTower:
    return locked_image_tower(CONFIG, {n: v for n, v in STORED.items() if n.startswith("image.")})


@pytest.fixture(scope="module")
def text_tower(tokenizer: Tokenizer) -> LockedTower:
    return locked_text_tower(CONFIG, {n: v for n, v in STORED.items() if n.startswith("text.")}, tokenizer)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(tiny_tokenizer(), encoding="utf-8")
    return Tokenizer.from_file(path, TokenizerConfig(max_tokens=32, prefix="query: "))


@pytest.fixture(scope="module")
def flax() -> DualEncoder:
    model = nnx.eval_shape(lambda: DualEncoder(CONFIG, folded=True, rngs=nnx.Rngs(0)))
    set_parameters(model, dequantize(STORED))
    return model


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / "photographs" / f"{i}.png" for i in range(7)]
    paths[0].parent.mkdir()
    for i, path in enumerate(paths):
        Image.fromarray(rng.integers(0, 256, (50 + i, 60, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "CHUNK", 3)


def test_photographs_as_the_flax_tower_sees_them(
    image_tower: LockedTower, flax: DualEncoder, photographs: list[Path], tmp_path: Path
) -> None:
    got, readable = image_features(image_tower, photographs, CONFIG, tmp_path / "cache", batch_size=3)
    pixels = np.stack([load_pixels(path, CONFIG.preprocessing, name=path.name) for path in photographs])
    expected = np.asarray(flax.image_features(pixels))
    np.testing.assert_allclose(image_tower(pixels=pixels), expected, atol=1e-4)
    assert got.dtype == np.float16
    assert readable.all()
    np.testing.assert_array_equal(got, image_tower(pixels=pixels).astype(np.float16))


def test_the_memory_layout_of_weights_does_not_matter(image_tower: LockedTower) -> None:
    stored = {name: np.asfortranarray(v) for name, v in STORED.items() if name.startswith("image.")}
    other = locked_image_tower(CONFIG, stored)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), dtype=np.uint8)
    assert other.fingerprint == image_tower.fingerprint
    np.testing.assert_array_equal(other(pixels=pixels), image_tower(pixels=pixels))


def test_texts_as_the_flax_tower_reads_them(
    text_tower: LockedTower, flax: DualEncoder, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    got = text_features(text_tower, TEXTS, tokenizer, tmp_path)
    assert got.shape == (5, TEXT_WIDTH)
    for row, text in zip(got, TEXTS, strict=True):
        (batch,) = tokenizer.encode([text])
        expected = np.asarray(flax.text_features(batch.input_ids, batch.attention_mask))[0]
        np.testing.assert_allclose(
            text_tower(input_ids=batch.input_ids, attention_mask=batch.attention_mask)[0], expected, atol=1e-4
        )
        np.testing.assert_allclose(row.astype(np.float32), expected, atol=2e-3)  # float16
    np.testing.assert_array_equal(got[0], got[3])


@pytest.mark.usefixtures("small_chunks")
def test_what_is_cached_is_not_computed_again(
    image_tower: LockedTower, photographs: list[Path], tmp_path: Path
) -> None:
    tower = Counted(image_tower)

    def run(paths: list[Path]) -> tuple[Array, int]:
        tower.rows = 0
        return image_features(tower, paths, CONFIG, tmp_path / "cache")[0], tower.rows  # type: ignore[arg-type]

    first, computed = run(photographs)
    assert computed == 7
    again, computed = run(photographs)
    assert computed == 0
    np.testing.assert_array_equal(first, again)
    assert run(photographs[:6])[1] == 0  # whole chunks are found whatever follows them
    assert run([*photographs[:3], *photographs[4:]])[1] == 3
    assert not list((tmp_path / "cache").glob(f"*{PARTIAL}"))


@pytest.mark.usefixtures("small_chunks")
def test_a_long_computation_says_how_much_there_is_to_do(
    image_tower: LockedTower, photographs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image_features(image_tower, photographs[:3], CONFIG, tmp_path)
    assert "embedding" not in capsys.readouterr().err
    image_features(image_tower, photographs, CONFIG, tmp_path)
    assert f"embedding {len(photographs) - 3} of {len(photographs)} photographs" in capsys.readouterr().err
    image_features(image_tower, photographs, CONFIG, tmp_path)
    assert "embedding" not in capsys.readouterr().err


def test_another_tower_or_another_tokenizer_is_another_cache(
    text_tower: LockedTower, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    stored = {name: values for name, values in STORED.items() if name.startswith("text.")}
    other = dict(stored) | {"text.norm.bias": stored["text.norm.bias"] + 1}
    (tmp_path / "tokenizer.json").write_text(tiny_tokenizer(), encoding="utf-8")
    passage = Tokenizer.from_file(tmp_path / "tokenizer.json", TokenizerConfig(max_tokens=32, prefix="passage: "))
    towers = [text_tower, locked_text_tower(CONFIG, other, tokenizer), locked_text_tower(CONFIG, stored, passage)]
    assert len({tower.fingerprint for tower in towers}) == 3
    assert locked_text_tower(CONFIG, stored, tokenizer).fingerprint == text_tower.fingerprint
    first, second = (text_features(tower, TEXTS, tokenizer, tmp_path) for tower in towers[:2])
    assert not np.array_equal(first, second)


@pytest.mark.usefixtures("small_chunks")
def test_an_interrupted_run_goes_on_where_it_was(
    image_tower: LockedTower, photographs: list[Path], tmp_path: Path
) -> None:
    tower, cache = Counted(image_tower), tmp_path / "cache"
    tower.limit = 4
    with pytest.raises(KeyboardInterrupt):
        image_features(tower, photographs, CONFIG, cache, batch_size=1)  # type: ignore[arg-type]
    (done,) = cache.glob("*.npy")
    cut_short = cache / "0123456789abcdef.partial"  # as a kill within np.save leaves one
    cut_short.write_bytes(done.read_bytes()[:50])
    tower.rows, tower.limit = 0, 10**9
    got, _ = image_features(tower, photographs, CONFIG, cache)  # type: ignore[arg-type]
    assert tower.rows == 4
    np.testing.assert_array_equal(got, image_features(image_tower, photographs, CONFIG, tmp_path / "other")[0])


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: data[:100], lambda data: data[:-5], lambda data: b"not an array" * 9],
    ids=["empty", "header", "short", "text"],
)
def test_a_damaged_file_is_made_again(
    damage: Callable[[bytes], bytes], image_tower: LockedTower, photographs: list[Path], tmp_path: Path
) -> None:
    cache, tower = tmp_path / "cache", Counted(image_tower)
    first, _ = image_features(image_tower, photographs, CONFIG, cache)
    path = min(cache.glob("*.npy"))
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    again, _ = image_features(tower, photographs, CONFIG, cache)  # type: ignore[arg-type]
    np.testing.assert_array_equal(first, again)
    assert 1 <= tower.rows <= 3
    assert path.read_bytes() == whole


def test_unreadable_photographs_are_named_and_marked(
    image_tower: LockedTower, photographs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs[2].write_bytes(photographs[2].read_bytes()[:200])
    photographs[5].unlink()
    got, readable = image_features(image_tower, photographs, CONFIG, tmp_path / "cache", batch_size=2)
    assert readable.tolist() == [True, True, False, True, True, False, True]
    assert (got[~readable] == 0).all()
    assert (got[readable] != 0).any(1).all()
    output = "".join(capsys.readouterr())
    assert output.count("left out: ") == 2
    assert str(photographs[2]) in output
    assert str(photographs[5]) in output


def test_nothing_to_do(image_tower: LockedTower, tmp_path: Path) -> None:
    got, readable = image_features(image_tower, [], CONFIG, tmp_path / "cache")
    assert got.shape == (0, IMAGE_WIDTH)
    assert readable.shape == (0,)

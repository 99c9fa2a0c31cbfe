"""The class that users hold, over a tiny bundle."""

import contextlib
import fcntl
import gc
import io
import os
import struct
import subprocess
import sys
import termios
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.tiny_bundle import EMBED_DIM, SIZE, tiny_config, tiny_files

import clipita
from clipita import default_model
from clipita.bundles.bundle import write_bundle
from clipita.errors import BackendError, CheckpointError, ImageError, TextError
from clipita.loading.load import load
from clipita.model import Encoded, Model


@pytest.fixture(scope="module")
def model(shared_bundle: Path) -> Model:
    return load(shared_bundle)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("foto")
    random = np.random.default_rng(0)
    paths = [folder / f"{index}.png" for index in range(12)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (SIZE + 3, SIZE, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def corrupt(tmp_path: Path) -> Path:
    path = tmp_path / "rotta.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n no more")
    return path


def decode_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("clipita-decode")]


def test_what_a_model_says_of_itself(model: Model) -> None:
    assert (model.name, model.license, model.embed_dim, model.image_size) == ("tiny", "Apache-2.0", EMBED_DIM, SIZE)
    assert (model.max_tokens, model.logit_scale, model.precision) == (12, 20.0, "fp32")
    assert model.templates == ("una foto di {}",)
    assert model.providers == ("CPUExecutionProvider",)
    assert repr(model) == (
        f"Model('tiny', backend='onnx', precision='fp32', embed_dim=32, fingerprint='{model.fingerprint}')"
    )


def test_one_text_gives_one_vector_and_many_give_rows(model: Model) -> None:
    one = model.encode_text("un gatto nero")
    many = model.encode_text(["un gatto nero", "un cane"])
    assert one.shape == (EMBED_DIM,)
    assert many.shape == (2, EMBED_DIM)
    assert one.dtype == many.dtype == np.float32
    np.testing.assert_allclose(one, many[0], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(many, axis=1), 1, rtol=1e-6)
    assert model.encode_text([]).shape == (0, EMBED_DIM)
    np.testing.assert_array_equal(model.encode_text(text for text in ["un gatto nero", "un cane"]), many)
    np.testing.assert_array_equal(model.encode_text(np.array(["un gatto nero", "un cane"])), many)


def test_many_texts_are_shared_among_threads_and_stay_in_order(model: Model) -> None:
    texts = [f"un gatto{' nero' * (number % 5)}" for number in range(320)]
    few = np.concatenate([model.encode_text(texts[start : start + 40]) for start in range(0, 320, 40)])
    np.testing.assert_allclose(model.encode_text(texts, batch_size=16), few, atol=1e-6)


def test_order_batches_and_duplicates_do_not_matter(model: Model) -> None:
    texts = ["un gatto", "mare", "una foto di un cane nero e un gatto", "un gatto", "perche'", "perché", "blu mare"]
    alone = np.stack([model.encode_text(text) for text in texts])
    for batch_size in (1, 2, 64):
        np.testing.assert_allclose(model.encode_text(texts, batch_size=batch_size), alone, atol=1e-6)
    np.testing.assert_allclose(model.encode_text(texts[::-1]), alone[::-1], atol=1e-6)


@pytest.mark.parametrize("texts", [b"gatto", bytearray(b"gatto"), {"gatto"}, {"gatto": 1}, 3, None, Path("gatto")])
def test_what_is_not_a_list_of_texts_is_refused(model: Model, texts: Any) -> None:
    with pytest.raises(TextError, match="texts must be a str or a list of str, not"):
        model.encode_text(texts)


def test_long_text_warns_once_where_the_user_called(model: Model) -> None:
    with pytest.warns(UserWarning, match="1 of 2 texts are longer than 12 tokens") as record:
        model.encode_text(["gatto " * 50, "cane"])
    assert [warning.filename for warning in record] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.encode_text("gatto " * 50, on_truncate="ignore")
    with pytest.raises(TextError, match=r"texts\[0\] is 53 tokens long"):
        model.encode_text("gatto " * 50, on_truncate="raise")


def test_every_kind_of_image_gives_the_same_vector(model: Model, photos: list[Path]) -> None:
    path = photos[0]
    with Image.open(path) as image, path.open("rb") as file:
        array = np.asarray(image)
        kinds = [str(path), path, path.read_bytes(), bytearray(path.read_bytes()), file, image, array]
        rows = model.encode_image(kinds)
    assert rows.shape == (len(kinds), EMBED_DIM)
    assert (rows == rows[0]).all()
    np.testing.assert_allclose(model.encode_image(path), rows[0], atol=1e-6)
    assert model.encode_image(memoryview(path.read_bytes())).shape == (EMBED_DIM,)
    assert model.encode_image(io.BytesIO(path.read_bytes())).shape == (EMBED_DIM,)
    assert model.encode_image([]).shape == (0, EMBED_DIM)
    assert model.encode_image(iter(photos)).shape == (12, EMBED_DIM)


def test_a_bad_image_is_named(model: Model, photos: list[Path], corrupt: Path) -> None:
    with pytest.raises(ImageError, match=r"images\[1\] \('.*rotta.png'\)"):
        model.encode_image([photos[0], corrupt, photos[1]])
    with pytest.raises(ImageError, match=r"^'.*rotta.png'"):
        model.encode_image(corrupt)
    with pytest.raises(ImageError, match=r"images\[2\] is of type NoneType"):
        model.encode_image([photos[0], photos[1], None])  # type: ignore[list-item]
    with pytest.raises(ImageError, match="the image is of type int"):
        model.encode_image(3)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="Pass a batch as a list"):
        model.encode_image(np.zeros((2, 8, 8, 3), np.uint8))
    assert decode_threads() == []


def test_iter_encode_image_goes_on_past_bad_images(model: Model, photos: list[Path], corrupt: Path) -> None:
    array = np.zeros((9, 9, 3), np.uint8)
    items = [photos[0], corrupt, array, str(photos[1]), b"", photos[2]]
    for batch_size in (1, 2, 32):
        results = list(model.iter_encode_image(items, batch_size=batch_size))
        keys = [str(photos[0]), str(corrupt), 2, str(photos[1]), 4, str(photos[2])]
        assert [result.key for result in results] == keys
        assert [result.error is None for result in results] == [True, False, True, True, False, True]
        assert [result.embedding is None for result in results] == [False, True, False, False, True, False]
        good = np.stack([result.embedding for result in results if result.embedding is not None])
        np.testing.assert_allclose(good, model.encode_image([photos[0], array, photos[1], photos[2]]), atol=1e-6)
        assert str(results[1].error).startswith(f"images[1] ('{corrupt}')")
        assert isinstance(results[4].error, ImageError)
    assert list(model.iter_encode_image([])) == []
    assert [type(result) for result in model.iter_encode_image([b""])] == [Encoded]


def test_iter_encode_image_is_lazy_and_leaves_no_threads(model: Model, photos: list[Path]) -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield photos[taken % len(photos)]

    results = model.iter_encode_image(endless(), batch_size=4)
    assert taken == 0
    for _ in range(9):
        next(results)
    assert taken <= 9 + 3 * 4
    assert decode_threads()
    results.close()
    assert decode_threads() == []


def test_an_interrupt_is_raised_and_leaves_no_threads(model: Model, photos: list[Path]) -> None:
    def interrupted() -> Iterator[Path]:
        yield from photos[:5]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(model.iter_encode_image(interrupted(), batch_size=2))
    gc.collect()
    assert decode_threads() == []


def test_a_buffer_may_be_used_again(model: Model) -> None:
    frames = [np.full((SIZE, SIZE, 3), 20 * index, np.uint8) for index in range(8)]
    buffer = np.zeros((SIZE, SIZE, 3), np.uint8)

    def camera() -> Iterator[np.ndarray[Any, np.dtype[np.uint8]]]:
        for frame in frames:
            buffer[:] = frame
            yield buffer

    np.testing.assert_array_equal(model.encode_image(camera(), batch_size=3), model.encode_image(frames, batch_size=3))


def test_decoding_goes_on_while_the_tower_runs(
    shared_bundle: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(shared_bundle, threads=2)
    running, overlapped = threading.Event(), threading.Event()
    decode, encode = model._images._decode, model._backend.encode_pixels

    def watched_decode(*args: Any) -> Any:
        if running.is_set():
            overlapped.set()
        return decode(*args)

    def watched_encode(pixels: Any) -> Any:
        running.set()
        time.sleep(0.01)
        running.clear()
        return encode(pixels)

    monkeypatch.setattr(model._images, "_decode", watched_decode)
    monkeypatch.setattr(model._backend, "encode_pixels", watched_encode)
    assert len(list(model.iter_encode_image(photos * 10, batch_size=4))) == 120
    assert overlapped.is_set()


def test_one_image_where_many_belong_is_refused(model: Model) -> None:
    with pytest.raises(ImageError, match=r"images must be a list or another iterable of images, but it is 'a.jpg'"):
        model.iter_encode_image("a.jpg")


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "8", None])
def test_counts_are_whole_and_positive(model: Model, photos: list[Path], wrong: Any) -> None:
    for call in (
        lambda: model.encode_text("un gatto", batch_size=wrong),
        lambda: model.encode_image(photos[0], batch_size=wrong),
        lambda: model.encode_image(photos, batch_size=wrong),
        lambda: model.iter_encode_image(photos, batch_size=wrong),
        lambda: model.zero_shot(photos[0], ["cane"], batch_size=wrong),
    ):
        with pytest.raises(ValueError, match="batch_size must be a whole number from 1 on"):
            call()
    if wrong is not None:
        with pytest.raises(ValueError, match="top_k must be a whole number from 1 on"):
            model.zero_shot(photos[0], ["cane"], top_k=wrong)


def test_zero_shot_ranks_labels(model: Model, photos: list[Path]) -> None:
    labels = ["cane", "gatto", "mare"]
    one = model.zero_shot(photos[0], labels)
    assert sorted(score.label for score in one) == labels
    assert sum(score.score for score in one) == pytest.approx(1)
    assert [score.score for score in one] == sorted((score.score for score in one), reverse=True)

    cosines = model.encode_text([f"una foto di un {label}" for label in labels]) @ model.encode_image(photos[0])
    expected = np.exp(20 * cosines) / np.exp(20 * cosines).sum()
    np.testing.assert_allclose([dict(one)[label] for label in labels], expected, rtol=1e-4)

    many = model.zero_shot(photos[:3], labels, top_k=2)
    assert [len(scores) for scores in many] == [2, 2, 2]
    assert [label for label, _ in many[0]] == [label for label, _ in one[:2]]
    assert model.zero_shot([], labels) == []
    assert model.zero_shot([photos[0]], ["cane"]) == [[("cane", 1.0)]]


def test_a_label_bank_is_the_labels_computed_once(model: Model, photos: list[Path]) -> None:
    bank = model.label_bank(["cane", "gatto"], templates=["{}", "una foto di {}"])
    assert bank.labels == ("cane", "gatto")
    assert bank.embeddings.shape == (2, EMBED_DIM)
    assert repr(bank) == f"LabelBank(2 labels, fingerprint='{model.fingerprint}')"
    assert model.zero_shot(photos[0], bank) == model.zero_shot(
        photos[0], ["cane", "gatto"], templates=["{}", "una foto di {}"]
    )
    with pytest.raises(ValueError, match="templates belong to label_bank"):
        model.zero_shot(photos[0], bank, templates="{}")


def test_a_bank_of_another_model_is_refused(model: Model, photos: list[Path], tmp_path: Path) -> None:
    write_bundle(tmp_path / "other", config=tiny_config(), files=tiny_files(seed=1))
    bank = load(tmp_path / "other").label_bank(["cane", "gatto"])
    with pytest.raises(CheckpointError, match=r"made by a model with fingerprint \w{16}, and this one has \w{16}"):
        model.zero_shot(photos[0], bank)


def test_threads_may_share_a_model(shared_bundle: Path, photos: list[Path]) -> None:
    model = load(shared_bundle)  # fresh, so that its towers are loaded under the race
    labels = ["cane", "gatto", "mare"]

    def work(index: int) -> tuple[Any, ...]:
        start = index % 6
        return (
            model.encode_text([f"un {label} nero" for label in labels[index % 3 :]]),
            model.encode_image(photos[start : start + 5], batch_size=2),
            np.array([score for _, score in model.zero_shot(photos[start], labels)]),
        )

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(work, range(24)))
    for index, results in enumerate(together):
        for found, expected in zip(results, work(index), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "torch"}, "there is no backend 'torch': choose 'onnx' or 'flax'"),
        ({"precision": "int4"}, "'tiny' has no precision 'int4': choose 'fp32'"),
        ({"threads": 0}, "threads must be a number from 1 on"),
        ({"threads": "2"}, "threads must be a number from 1 on"),
        ({"threads": True}, "threads must be a number from 1 on"),
        ({"backend": "flax", "threads": 2}, "threads and providers are for backend='onnx'"),
        ({"providers": ["TensorrtExecutionProvider"]}, "has no provider 'TensorrtExecutionProvider' here"),
    ],
)
def test_load_refuses_what_cannot_be_had(shared_bundle: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        load(shared_bundle, **options)


def test_load_checks_what_the_bundle_says_of_its_inputs(tmp_path: Path) -> None:
    config = tiny_config()
    wrong_image = {**config.image, "preprocessing": {**config.image["preprocessing"], "resize": "squeeze"}}
    write_bundle(tmp_path / "image", config=tiny_config(image=wrong_image), files=tiny_files())
    with pytest.raises(CheckpointError, match="'resize' must be"):
        load(tmp_path / "image")
    wrong_text = {"tokenizer": {"max_tokens": 12, "pefix": ""}}
    write_bundle(tmp_path / "text", config=tiny_config(text=wrong_text), files=tiny_files())
    with pytest.raises(CheckpointError, match=r"unknown key 'pefix'. Did you mean 'prefix'\?"):
        load(tmp_path / "text")


def test_the_functions_share_one_default_model(
    shared_bundle: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(default_model, "_model", None)
    monkeypatch.setenv("CLIPITA_MODEL", str(shared_bundle))
    with ThreadPoolExecutor(8) as pool:
        models = set(pool.map(lambda _: default_model.default_model(), range(8)))
    (model,) = models
    np.testing.assert_array_equal(clipita.encode_text("un gatto"), model.encode_text("un gatto"))
    np.testing.assert_array_equal(clipita.encode_image(photos[0]), model.encode_image(photos[0]))
    assert clipita.zero_shot(photos[0], ["cane", "gatto"]) == model.zero_shot(photos[0], ["cane", "gatto"])


def test_flax_that_is_not_installed_is_named(shared_bundle: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['jax'] = None\n"
        "import clipita\n"
        "try:\n"
        "    clipita.load(sys.argv[1], backend='flax')\n"
        "except clipita.BackendError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, shared_bundle], capture_output=True, text=True, check=True)
    assert done.stdout == "backend='flax' needs jax, which is not installed: pip install 'clipita[flax]'\n"


def test_many_labels_show_how_far_they_are_on_a_terminal_only(shared_bundle: Path) -> None:
    code = f"""
import clipita
model = clipita.load({str(shared_bundle)!r})
assert len(model.label_bank([f"gatto {{i}}" for i in range(1200)]).labels) == 1200
"""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    subprocess.run([sys.executable, "-c", code], stderr=theirs, check=True)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError), open(ours, "rb", buffering=0) as terminal:  # ends when all of it is read
        while block := terminal.read(65536):
            shown += block
    assert b"Embedding labels" in shown
    assert b"/1200 [" in shown
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stderr == b""

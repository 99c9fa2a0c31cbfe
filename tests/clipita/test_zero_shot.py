"""Labels, templates, and the softmax over them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import PHOTOS

import clipita
from clipita.errors import TextError
from clipita.system.arrays import FloatArray
from clipita.zero_shot import LabelScore, check_labels, check_templates, embed_labels, probabilities, rank


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("cane", r"labels must be a list such as \['cane', 'gatto'\], not 'cane'"),
        (b"cane", "labels must be a list"),
        (None, "labels must be a list .*, not None"),
        (3, "labels must be a list .*, not 3"),
        ([], "labels is empty"),
        (["cane", ""], r"labels\[1\] is '': there is nothing to read"),
        (["cane", None], r"labels\[1\] must be a str, but it is NoneType"),
        (["cane", "ga\0tto"], r"labels\[1\] holds a NUL"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(labels: object, message: str) -> None:
    with pytest.raises(TextError, match=message):
        check_labels(labels)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("templates", "message"),
    [
        ([], "templates is empty"),
        (3, "templates must be a str or a list .*, not 3"),
        ("una foto", r"templates\[0\] must have one {} .* 'una foto' has 0"),
        (["{}", "{} e {}"], r"templates\[1\] must have one {} .* has 2"),
        (["{label}"], r"templates\[0\] must have one {}"),
        ([None], r"templates\[0\] must be a str"),
    ],
)
def test_templates_without_their_place_are_refused(templates: object, message: str) -> None:
    with pytest.raises(TextError, match=message):
        check_templates(templates)  # type: ignore[arg-type]


def test_several_templates_are_averaged_and_normalised_again() -> None:
    known = {"a x": [1, 0, 0], "b x": [0, 1, 0], "a {y}": [0, 0, 1], "b {y}": [0, 0, 1]}

    def encode(texts: list[str]) -> FloatArray:
        return np.array([known[text] for text in texts], np.float32)

    embeddings = embed_labels(encode, ["x", "{y}"], ["a {}", "b {}"])
    half = 0.5**0.5
    np.testing.assert_allclose(embeddings, [[half, half, 0], [0, 0, 1]], rtol=1e-6)
    assert embeddings.dtype == np.float32


def test_with_a_bias_each_label_is_judged_by_itself() -> None:
    images = np.array([[1, 0], [0, 1]], np.float32)
    labels = np.array([[1, 0], [0.6, 0.8], [-1, 0]], np.float32)
    found = probabilities(images @ labels.T, 100.0, -12.0)
    expected = 1 / (1 + np.exp(-np.array([[88, 48, -112], [-12, 68, -12]], np.float64)))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-15)
    alone = probabilities(images @ labels[:1].T, 100.0, -12.0)
    np.testing.assert_array_equal(alone, found[:, :1])
    assert np.isfinite(probabilities(images @ labels.T, 1e4, -1e4)).all()


def test_probabilities_are_the_softmax_of_the_scaled_cosines() -> None:
    images, labels = np.eye(2, 3, dtype=np.float32), np.eye(3, dtype=np.float32)
    expected = np.exp([[2, 0, 0], [0, 2, 0]]) / (np.exp(2) + 2)
    np.testing.assert_allclose(probabilities(images @ labels.T, 2.0), expected)
    assert probabilities(images[:0] @ labels.T, 2.0).shape == (0, 3)


@given(st.integers(1, 5), st.integers(1, 7), st.sampled_from([0.01, 20.0, 100.0, 1e6]))
def test_probabilities_are_shares_at_any_scale(images: int, labels: int, scale: float) -> None:
    random = np.random.default_rng(images * 10 + labels)
    rows, columns = (random.standard_normal((count, 4), dtype=np.float32) for count in (images, labels))
    shares = probabilities(rows @ columns.T, scale)
    assert np.isfinite(shares).all()
    np.testing.assert_allclose(shares.sum(axis=1), 1)


def test_rank_is_best_first_and_stable() -> None:
    scores = np.array([0.2, 0.3, 0.2, 0.3])
    best = rank(("a", "b", "c", "d"), scores, None)
    assert best == [LabelScore("b", 0.3), LabelScore("d", 0.3), LabelScore("a", 0.2), LabelScore("c", 0.2)]
    assert rank(("a", "b", "c", "d"), scores, 2) == best[:2]
    assert rank(("a", "b", "c", "d"), scores, 9) == best
    assert type(best[0].score) is float


def test_labels_are_embedded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = clipita.load()
    asked: list[int] = []
    encode = model.encode_text

    def watch(texts: list[str]) -> np.ndarray:
        asked.append(len(texts))
        return encode(texts)

    monkeypatch.setattr(model, "encode_text", watch)
    grey = np.full((32, 32, 3), 128, np.uint8)
    first = model.zero_shot(grey, ["cane", "gatto"], templates="{}")
    assert model.zero_shot(grey, iter(["cane", "gatto"]), templates=["{}"]) == first
    bank = model.label_bank(["cane", "gatto"], templates="{}")
    assert model.label_bank(("cane", "gatto"), templates=("{}",)) is bank
    assert asked == [2]
    model.zero_shot(grey, ["gatto", "cane"], templates="{}")  # another order is another bank
    model.zero_shot(grey, ["cane", "gatto"], templates=["una foto di {}", "un disegno di {}"])
    assert asked == [2, 2, 4]
    for number in range(8):
        model.label_bank([f"numero {number}"], templates="{}")
    model.label_bank(["cane", "gatto"], templates="{}")  # made again: ten others were asked for since
    assert asked == [2, 2, 4] + [1] * 8 + [2]
    with pytest.raises(ValueError, match="read-only"):
        bank.embeddings[0] = 0


def test_labels_that_do_not_fit_are_left_out() -> None:
    scores, fits = np.array([0.2, 0.5, 0.3]), np.array([True, False, True])
    assert rank(("a", "b", "c"), scores, None, fits) == [LabelScore("c", 0.3), LabelScore("a", 0.2)]
    assert rank(("a", "b", "c"), scores, 1, fits) == [LabelScore("c", 0.3)]
    assert rank(("a", "b", "c"), scores, None, ~fits & fits) == []


@pytest.mark.slow
def test_a_photograph_of_none_of_the_labels_has_no_label_by_its_cosines() -> None:
    model = clipita.load()
    bank = model.label_bank(["gatto", "cane", "cavallo"])
    photographs = [PHOTOS / "gatto.jpg", PHOTOS / "razzo.jpg"]
    cat, rocket = model.encode_image(photographs) @ bank.embeddings.T
    everything = model.zero_shot(photographs, bank)
    assert model.zero_shot(photographs, bank, min_cosine=0.29) == [everything[0][:1], []]
    assert clipita.zero_shot(photographs[1], ["gatto", "cane", "cavallo"], min_cosine=0.29) == []
    assert cat.max() > 0.29 > rocket.max()
    second = float(np.sort(cat)[-2])
    assert model.zero_shot(photographs, bank, min_cosine=second - 1e-6)[0] == everything[0][:2]
    assert model.zero_shot(photographs, bank, min_cosine=second - 1e-6, top_k=1)[0] == everything[0][:1]
    assert model.zero_shot(photographs, bank, min_cosine=-1) == everything
    for wrong in (1.5, -2, float("nan")):
        with pytest.raises(ValueError, match="min_cosine must be from -1 to 1, not"):
            model.zero_shot(photographs[0], bank, min_cosine=wrong)

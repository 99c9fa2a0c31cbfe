"""Ranks in blocks against whole matrices, the original notebook against a transcription, intervals, and the command."""

import json
import os
import tracemalloc
from pathlib import Path

import clipita_train.cli
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from click.testing import CliRunner, Result
from clipita_train.evaluate import retrieval
from clipita_train.evaluate.metrics import mrr_at_k, ranks, recall_at_k
from clipita_train.evaluate.retrieval import METRICS, Ranked, best_ranks, retrieve
from clipita_train.intervals import differences, estimates
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.tiny import make_tiny_bundle

import clipita


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    rows = rng.normal(size=shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def pairs_of(texts: int, images: int, seed: int) -> np.ndarray:
    """Which image a text is about, each image having one at least, in no order."""
    rng = np.random.default_rng(seed)
    shown = np.concatenate([np.arange(images), rng.integers(images, size=texts - images)])
    return rng.permutation(shown)


@given(
    images=st.integers(1, 12),
    more=st.integers(0, 20),
    block=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 2**16),
)
def test_ranks_in_blocks_are_those_of_the_whole_matrix(
    images: int, more: int, block: tuple[int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    texts = np.eye(4, dtype=np.float32)[rng.integers(4, size=images + more)]  # with many ties, exact in any block
    gallery = np.eye(4, dtype=np.float32)[rng.integers(4, size=images)]
    shown = pairs_of(len(texts), images, seed)
    found = best_ranks(texts, gallery, (np.arange(len(texts)), shown), block=block)
    np.testing.assert_array_equal(found, ranks(texts @ gallery.T, shown))

    order = np.argsort(shown, kind="stable")
    found = best_ranks(gallery, texts, (shown[order], order), block=block)
    wanted = [np.flatnonzero(shown == i).tolist() for i in range(images)]
    np.testing.assert_array_equal(found, ranks(gallery @ texts.T, wanted))


def test_both_directions_score_as_the_plain_functions() -> None:
    rng = np.random.default_rng(0)
    texts, images, shown = unit(rng, 300, 8), unit(rng, 90, 8), pairs_of(300, 90, 0)
    found = retrieve(texts, images, shown)
    wanted = [np.flatnonzero(shown == i).tolist() for i in range(90)]
    cosines = texts @ images.T
    for direction, scores, relevant in (
        ("text -> image", cosines, shown),
        ("image -> text", cosines.T, wanted),
    ):
        expected = [f(scores, relevant, k) for f in (mrr_at_k, recall_at_k) for k in (1, 5, 10)]
        assert list(found[direction].scores()) == list(METRICS)
        assert [score.value for score in found[direction].scores().values()] == pytest.approx(expected)


@pytest.mark.parametrize("width", [3, 24, 255])
def test_a_model_with_one_embedding_for_everything_finds_nothing(width: int) -> None:
    one = unit(np.random.default_rng(width), 1, width)
    shown = pairs_of(2500, 500, 0)
    found = retrieve(np.repeat(one, 2500, 0), np.repeat(one, 500, 0), shown)
    assert (found["text -> image"].ranks == 500).all()
    np.testing.assert_array_equal(found["image -> text"].ranks, 2500 - np.bincount(shown) + 1)
    assert all(score.value == 0 for ranked in found.values() for score in ranked.scores().values())


def test_twins_in_the_gallery_tie_wherever_they_stand() -> None:
    rng = np.random.default_rng(1)
    images = unit(rng, 1001, 37)
    images[500:1000] = images[:500]
    texts = images + 0.01 * unit(rng, 1001, 37)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    found = best_ranks(texts, images, (np.arange(1001), np.arange(1001)), block=(64, 77))
    assert (found[:1000] >= 2).all()
    assert found[1000] == 1


@pytest.mark.slow
def test_memory_does_not_grow_with_the_product_of_queries_and_gallery() -> None:
    rng = np.random.default_rng(0)
    texts, images = unit(rng, 20_000, 4), unit(rng, 30_000, 4)  # all scores would be 2.4 GB
    shown = np.arange(20_000)
    tracemalloc.start()
    try:
        found = best_ranks(texts, images, (np.arange(20_000), shown))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 48e6
    assert 14_000 < found.mean() < 16_000


def test_embeddings_of_the_wrong_kind_are_named() -> None:
    rng = np.random.default_rng(0)
    texts, images, shown = unit(rng, 6, 4), unit(rng, 3, 4), np.array([0, 1, 2, 0, 1, 2])
    with pytest.raises(ValueError, match=r"not \(6, 3\), \(3, 4\) and \(6,\)"):
        retrieve(texts[:, :3], images, shown)
    with pytest.raises(ValueError, match=r"images\[2\] has no text"):
        retrieve(texts, images, shown % 2)
    with pytest.raises(ValueError, match="number 1 of the queries from 0 has 2"):
        retrieve(texts * np.array([[1], [2], [1], [1], [1], [1]], np.float32), images, shown)
    texts[4] = np.nan
    with pytest.raises(ValueError, match="number 4 of the queries from 0 has nan"):
        retrieve(texts, images, shown)


def notebook_mrr(text_outputs: np.ndarray, images: np.ndarray, names: list[str], targets: list[str], n: int) -> float:
    """CLIP_Image_Retrieval_and_MRR.ipynb in other words: batches of 1,024 texts, each over its own norm; the last n of
    an argsort, backwards; one over the place of the target's name, or 0."""
    rows: list[np.ndarray] = []
    for begin in range(0, len(text_outputs), 1024):
        one_batch = text_outputs[begin : begin + 1024]
        rows.extend(one_batch / np.linalg.norm(one_batch))
    total = 0.0
    for row, target in zip(np.array(rows) @ images.T, targets, strict=True):
        listed = [names[i] for i in row.argsort()[-n:][::-1]]
        total += 1 / (listed.index(target) + 1) if target in listed else 0
    return total / len(targets)


def test_the_notebooks_metric_from_text_to_image() -> None:
    rng = np.random.default_rng(3)
    images, shown = unit(rng, 400, 16), pairs_of(1500, 400, 3)
    texts = (images[shown] + 0.8 * unit(rng, 1500, 16)) * rng.uniform(0.5, 20, (1500, 1)).astype(np.float32)
    names = [f"COCO_val2014_{i:012d}.jpg" for i in range(400)]
    found = retrieve(texts, images, shown, notebook=True)["text -> image"]
    for k in (1, 5, 10):
        expected = notebook_mrr(texts, images, names, [names[i] for i in shown], k)
        assert 0.1 < expected < 1
        assert found.scores()[f"MRR@{k}"].value == pytest.approx(expected, abs=1e-12)
    plain = retrieve(texts / np.linalg.norm(texts, axis=1, keepdims=True), images, shown)["text -> image"]
    np.testing.assert_array_equal(np.minimum(plain.ranks, 11), found.ranks)  # harmless this way round


def test_the_notebooks_norm_from_image_to_text_favours_long_vectors_and_the_last_batch() -> None:
    rng = np.random.default_rng(4)
    images = unit(rng, 300, 16)
    shown = np.repeat(np.arange(300), 5)
    texts = images[shown] + 0.8 * unit(rng, 1500, 16)
    texts *= rng.uniform(0.5, 20, (1500, 1)).astype(np.float32)
    scaled = np.concatenate([half / np.sqrt((half**2).sum()) for half in (texts[:1024], texts[1024:])])
    expected = []
    for image, row in enumerate(images @ scaled.T):
        hits = [place for place, text in enumerate(np.argsort(-row)[:10], 1) if shown[text] == image]
        expected.append(hits[0] if hits else 11)
    found = retrieve(texts, images, shown, notebook=True)["image -> text"]
    np.testing.assert_array_equal(found.ranks, expected)
    right = retrieve(texts / np.linalg.norm(texts, axis=1, keepdims=True), images, shown)["image -> text"]
    assert right.scores()["MRR@10"].low > found.scores()["MRR@10"].high


def test_the_notebooks_best_ten_do_not_depend_on_the_blocks() -> None:
    rng = np.random.default_rng(5)
    texts, images, shown = unit(rng, 50, 8), unit(rng, 40, 8), pairs_of(50, 40, 5)
    whole = retrieval.notebook_ranks(texts, images, (np.arange(50), shown))
    np.testing.assert_array_equal(whole, retrieval.notebook_ranks(texts, images, (np.arange(50), shown), block=(7, 3)))


def test_a_bootstrap_interval_is_as_wide_as_theory_says_and_repeats() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.2, (1000, 1))
    (estimate,) = estimates(values, np.arange(1000))
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * 0.2 / 1000**0.5, rel=0.1)
    assert estimates(values, np.arange(1000)) == [estimate]


def test_captions_of_one_photograph_do_not_count_as_five_photographs() -> None:
    values = np.repeat(np.random.default_rng(0).normal(0.5, 0.2, (400, 1)), 5, axis=0)
    (alone,), (together,) = (estimates(values, g) for g in (np.arange(2000), np.arange(2000) // 5))
    assert (together.high - together.low) / (alone.high - alone.low) == pytest.approx(5**0.5, rel=0.1)
    assert together.value == pytest.approx(alone.value)


def test_groups_of_unequal_size_weigh_by_their_queries() -> None:
    (estimate,) = estimates(np.array([[1.0], [0.0], [0.0], [0.0]]), np.array([0, 1, 1, 1]))
    assert (estimate.value, estimate.low, estimate.high) == (0.25, 0, 1)


@pytest.mark.slow
@given(hnp.arrays(np.float64, (20, 2), elements=st.floats(0, 1, width=16)))
def test_a_model_does_not_differ_from_itself(values: np.ndarray) -> None:
    for difference in differences(values, values, np.arange(20) // 2):
        assert (difference.value, difference.low, difference.high, difference.p) == (0, 0, 0, 1)


def test_p_is_small_for_a_difference_and_uniform_without_one() -> None:
    rng = np.random.default_rng(0)
    base = rng.uniform(0, 1, (200, 1))
    (better,) = differences(base, base + 0.05 + rng.normal(0, 0.1, (200, 1)), np.arange(200))
    assert better.p < 0.001
    assert 0 < better.low < better.value < better.high
    (worse,) = differences(base + 0.05, base, np.arange(200))
    assert (worse.p, worse.high < 0) == (pytest.approx(0.0001), True)
    noise = rng.normal(0, 0.1, (40, 800))
    p = np.array([difference.p for difference in differences(np.zeros_like(noise), noise, np.arange(40))])
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.02)
    assert np.median(p) == pytest.approx(0.5, abs=0.05)


def test_p_is_that_of_all_swaps() -> None:
    delta = np.array([3.0, 1.0, -0.5, 2.0, 0.25, 1.5])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 6)).reshape(6, -1)
    exact = (np.abs(signs.T @ delta) >= delta.sum() - 1e-9).mean()
    (difference,) = differences(np.zeros((6, 1)), delta[:, None], np.arange(6))
    assert difference.p == pytest.approx(exact, abs=0.01)


def test_two_models_of_other_queries_are_not_compared() -> None:
    ranked = Ranked(np.ones(3, int), np.arange(3))
    with pytest.raises(ValueError, match="on the same queries"):
        ranked.against(Ranked(np.ones(3, int), np.array([0, 0, 1])))
    with pytest.raises(ValueError, match=r"not \(3, 1\) and \(2, 1\)"):
        differences(np.zeros((3, 1)), np.zeros((2, 1)), np.arange(3))
    with pytest.raises(ValueError, match=r"expected values \(Q, M\).*not \(0, 1\) and \(0,\)"):
        estimates(np.zeros((0, 1)), np.arange(0))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = [tmp_path_factory.mktemp("bundles") / name for name in ("float32", "int4")]
    for folder in folders:
        make_tiny_bundle(folder, folder.name)
    return folders


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with six photographs, one of them damaged, and captions of those and of one that is not there."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (44, 50, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{i}.png")
    (tmp_path / "images" / "4.png").write_bytes(b"no picture")
    words = ("un cane", "un gatto", "una gatta", "due cani", "il cane", "un cane e un gatto", "una cena")
    lines = [{"image_path": f"{i}.png", "captions": [word, f"{word} a"]} for i, word in enumerate(words)]
    lines[0]["captions"] = ["un cane"]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return tmp_path


def call(place: Path, *more: str) -> Result:
    captions = [] if "--captions" in more else ["--captions", f"{place}/captions.jsonl"]
    arguments = ["evaluate", "retrieval", *captions, "--images", f"{place}/images", *more]
    return CliRunner().invoke(clipita_train.cli.main, arguments)


def test_the_command_compares_two_models_and_says_what_was_left_out(place: Path, bundles: list[Path]) -> None:
    models = [argument for folder in bundles for argument in ("--model", f"{folder}")]
    result = call(place, *models, "--out", f"{place}/scores")
    assert result.exit_code == 0, result.output
    text = (place / "scores.md").read_text("utf-8")
    assert text in result.output
    assert "- 5 photographs with 9 captions, 1 to 2 a photograph; left out with their captions: " in text
    assert "1 not there (6.png), 1 unreadable (4.png)." in text
    assert "- text -> image: 9 captions, each among all 5 photographs." in text
    assert "in no template" in text
    # Both are called "tiny", so that they are told apart by their fingerprints.
    assert f"## image -> text, compared with tiny {clipita.load(bundles[0]).fingerprint}\n" in text

    data = json.loads((place / "scores.json").read_text("utf-8"))
    assert data["protocol"]["missing"] == ["6.png"]
    assert data["protocol"]["unreadable"] == ["4.png"]
    assert [model["fingerprint"] for model in data["models"]] == [clipita.load(f).fingerprint for f in bundles]
    assert data["models"][0]["differences"] is None

    shown, texts = np.array([0, 1, 1, 2, 2, 3, 3, 4, 4]), []
    for line in (place / "captions.jsonl").read_text("utf-8").splitlines():
        fields = json.loads(line)
        texts += fields["captions"] if fields["image_path"] not in ("4.png", "6.png") else []
    scores = []
    for folder in bundles:
        model = clipita.load(folder)
        images = model.encode_image([place / "images" / f"{i}.png" for i in (0, 1, 2, 3, 5)])
        scores.append(mrr_at_k(model.encode_text(texts) @ images.T, shown, 5))
    found = [model["scores"]["text -> image"]["MRR@5"]["value"] for model in data["models"]]
    assert found == pytest.approx(scores)
    difference = data["models"][1]["differences"]["text -> image"]["MRR@5"]
    assert difference["value"] == pytest.approx(scores[1] - scores[0])
    assert f"{scores[1] - scores[0]:+.4f} [" in text


def test_a_second_table_embeds_nothing_but_what_changed(
    place: Path, bundles: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    plain_images, plain_texts = clipita.Model.iter_encode_image, clipita.Model.encode_text

    def images(self, paths, **more):
        paths = list(paths)
        encoded.extend(path.name for path in paths)
        return plain_images(self, paths, **more)

    def texts(self, some, **more):
        encoded.append("texts")
        return plain_texts(self, some, **more)

    monkeypatch.setattr(clipita.Model, "iter_encode_image", images)
    monkeypatch.setattr(clipita.Model, "encode_text", texts)
    more = ["--model", f"{bundles[0]}", "--cache", f"{place}/cache"]
    first = call(place, *more)
    assert first.exit_code == 0, first.output
    assert encoded == [*(f"{i}.png" for i in range(6)), "texts"]
    encoded.clear()
    assert call(place, *more).output == first.output
    assert encoded == []
    assert call(place, *more, "--notebook").exit_code == 0
    assert encoded == []

    Image.new("RGB", (44, 44), "red").save(place / "images" / "4.png")
    os.utime(place / "images" / "4.png", ns=(1, 1))
    result = call(place, *more)
    assert "- 6 photographs with 11 captions" in result.output
    assert "0 unreadable" in result.output
    assert "4.png" in encoded
    encoded.clear()
    picture = place / "images" / "4.png"
    picture.write_bytes(b"0" * picture.stat().st_size)
    os.utime(picture, ns=(2, 2))
    assert "1 unreadable (4.png)." in call(place, *more).output
    encoded.clear()
    call(place, "--model", f"{bundles[1]}", "--cache", f"{place}/cache")
    assert "texts" in encoded


def test_two_links_to_one_photograph_are_two_answers(place: Path, bundles: list[Path]) -> None:
    (place / "images" / "6.png").symlink_to(place / "images" / "0.png")
    result = call(place, "--model", f"{bundles[0]}")
    assert "- 6 photographs with 11 captions" in result.output
    assert "0 not there, 1 unreadable (4.png)." in result.output


def test_a_list_of_images_narrows_the_question_and_the_notebook_says_so(place: Path, bundles: list[Path]) -> None:
    (place / "list.txt").write_text("0.png\n3.png\n", "utf-8")
    more = ["--model", f"{bundles[0]}", "--only", f"{place}/list.txt", "--notebook"]
    result = call(place, "--captions", f"{place}/captions.jsonl:jsonl", *more)
    assert "- 2 photographs with 3 captions" in result.output
    assert "Ranked as the original notebook" in result.output


def test_what_is_wrong_is_one_line(place: Path, bundles: list[Path]) -> None:
    def fails(*more: str) -> str:
        result = call(place, "--model", f"{bundles[0]}", *more)
        assert isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code != 0
        return result.output.splitlines()[-1]

    assert "expected FILE or FILE:FORMAT, with one of mscoco, " in fails("--captions", f"{place}/none.jsonl")
    assert f"no file at {place}/captions.jsonl:coco;" in fails("--captions", f"{place}/captions.jsonl:coco")
    assert "is not in the format flickr8k" in fails("--captions", f"{place}/captions.jsonl:flickr8k")
    (place / "list.txt").write_text("9.png\n", "utf-8")
    assert "no captions of 1 of the wanted images: 9.png" in fails("--only", f"{place}/list.txt")
    for image in (place / "images").iterdir():
        image.unlink()
    assert fails() == f"Error: none of the 7 photographs is in {place}/images; the first is 0.png"
    (place / "images" / "0.png").write_bytes(b"no picture")
    assert fails() == f"Error: none of the 1 photographs in {place}/images can be read"

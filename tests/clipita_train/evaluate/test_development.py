"""Accuracies against brute force, and the protocol on a tiny bundle."""

import math
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from clipita_train.data.concepts import Concept, Ontology, load_ontology
from clipita_train.data.photographs.collections import COLLECTIONS
from clipita_train.data.photographs.example import Example
from clipita_train.evaluate.development import Score, evaluate, markdown
from clipita_train.evaluate.metrics import (
    Relevant,
    accuracy_at_k,
    calibration_error,
    expected_calibration_error,
    mrr_at_k,
    recall_at_k,
)
from clipita_train.evaluate.tasks import BROADER, KINDS, CrossSourceQuestion, across, embed_sources
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.tiny import make_tiny_bundle

import clipita


@given(
    scores=hnp.arrays(np.int8, st.tuples(st.integers(1, 6), st.integers(1, 7)), elements=st.integers(-2, 2)),
    k=st.integers(1, 8),
    data=st.data(),
)
def test_accuracy_is_that_of_counting_by_hand_with_ties_against_the_right_label(
    scores: np.ndarray, k: int, data: st.DataObject
) -> None:
    labels = np.array([data.draw(st.integers(0, scores.shape[1] - 1)) for _ in scores])
    hits = 0
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        rivals = [score for i, score in enumerate(row) if i != label and score >= row[label]]
        hits += len(rivals) < k
    assert accuracy_at_k(scores.astype(np.float32), labels, k) == pytest.approx(hits / len(labels))


def test_a_constant_model_knows_nothing() -> None:
    scores, labels = np.zeros((10, 4)), np.arange(10) % 4
    assert [accuracy_at_k(scores, labels, k) for k in (1, 2, 3, 4)] == [0, 0, 0, 1]


def test_infinite_scores_have_an_order_too() -> None:
    scores = np.array([[-np.inf, 0.0], [np.inf, 0.0]])
    assert accuracy_at_k(scores, np.array([1, 1]), 1) == 0.5


@pytest.mark.parametrize(
    ("scores", "labels", "k", "message"),
    [
        (np.zeros(3), np.zeros(3, int), 1, r"expected scores \(Q, K\).*not \(3,\) and \(3,\)"),
        (np.zeros((3, 2)), np.zeros(2, int), 1, r"not \(3, 2\) and \(2,\)"),
        (np.zeros((3, 2)), np.zeros((3, 1), int), 1, r"not \(3, 2\) and \(3, 1\)"),
        (np.zeros((0, 2)), np.zeros(0, int), 1, "Q >= 1"),
        (np.array([[0.0, np.nan]]), np.zeros(1, int), 1, "NaN"),
        (np.zeros((1, 2)), np.zeros(1, int), 0, "k must be at least 1, not 0"),
    ],
)
def test_what_cannot_be_scored(scores: np.ndarray, labels: np.ndarray, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        accuracy_at_k(scores, labels, k)


def binned_by_hand(confidence: list[float], right: list[bool], bins: int) -> float:
    error = 0.0
    for i in range(bins):
        rows = [j for j, sure in enumerate(confidence) if i / bins < sure <= (i + 1) / bins or (i == 0 and sure == 0)]
        if rows:
            accuracy = sum(right[j] for j in rows) / len(rows)
            error += len(rows) / len(right) * abs(accuracy - sum(confidence[j] for j in rows) / len(rows))
    return error


def test_calibration_by_hand() -> None:
    # Of three rows at 0.8 two are right, of two at 0.6 none: 3/5 |2/3 - 0.8| + 2/5 |0 - 0.6| = 0.08 + 0.24.
    probabilities = np.array([[0.8, 0.2], [0.2, 0.8], [0.8, 0.2], [0.6, 0.4], [0.4, 0.6]])
    assert expected_calibration_error(probabilities, np.array([0, 1, 1, 1, 0]), 10) == pytest.approx(0.32)
    # Were the two right instead, one bin would let surplus and lack make up for each other: |4/5 - 3.6/5|.
    assert expected_calibration_error(probabilities, np.array([0, 1, 1, 0, 1]), 1) == pytest.approx(0.08)
    assert expected_calibration_error(probabilities, np.array([0, 1, 1, 0, 1]), 10) == pytest.approx(0.24)


def test_calibration_is_none_off_at_best_and_all_off_at_worst() -> None:
    sure = np.eye(4)
    assert expected_calibration_error(sure, np.arange(4)) == 0
    assert expected_calibration_error(sure, (np.arange(4) + 1) % 4) == 1
    assert expected_calibration_error(np.full((4, 4), 0.25), np.arange(4)) == 0.25  # all tie, so none is right
    assert expected_calibration_error(np.zeros((3, 2)), np.array([0, 1, 0])) == 0  # sigmoids: none fits, and is said so
    # An edge belongs to the bin below it: 0.5 and 0.4 share one, 0.6 has the other.
    confidence, right = np.array([0.4, 0.5, 0.6]), np.array([1.0, 0.0, 1.0])
    assert calibration_error(confidence, right, 2) == pytest.approx((0.1 + 0.4) / 3)


@given(st.lists(st.tuples(st.integers(0, 60), st.booleans()), min_size=1, max_size=40), st.integers(1, 20))
def test_calibration_is_that_of_binning_by_hand(rows: list[tuple[int, bool]], bins: int) -> None:
    confidence, right = [sure / 60 for sure, _ in rows], [good for _, good in rows]
    found = calibration_error(np.array(confidence), np.array(right, np.float64), bins)
    assert found == pytest.approx(binned_by_hand(confidence, right, bins))
    assert 0 <= found <= 1


@pytest.mark.parametrize(
    ("probabilities", "labels", "bins", "message"),
    [
        (np.zeros(3), np.zeros(3, int), 15, r"expected probabilities \(Q, K\).*not \(3,\) and \(3,\)"),
        (np.zeros((0, 2)), np.zeros(0, int), 15, "Q >= 1"),
        (np.array([[0.0, np.nan]]), np.zeros(1, int), 15, "NaN"),
        (np.array([[3.5, -2.0]]), np.zeros(1, int), 15, r"from 0 to 1, not from 3.5 to 3.5"),
        (np.array([[0.5, 0.5]]), np.zeros(1, int), 0, "bins must be at least 1, not 0"),
    ],
)
def test_what_has_no_calibration(probabilities: np.ndarray, labels: np.ndarray, bins: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(probabilities, labels, bins)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> clipita.Model:
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    make_tiny_bundle(folder, "float32")
    return clipita.load(folder)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (44, 50, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    return tmp_path


def concept(name: str, *synonyms: str, held_out: tuple[str, ...] = (), parents: tuple[str, ...] = ()) -> Concept:
    return Concept(name, f"un {name}", "", synonyms, parents, held_out=held_out)


SMALL = Ontology([
    *(concept(kind) for kind in BROADER),
    concept("gatto", "un micio", "un felino", held_out=("un micio",), parents=("feline",)),
    concept("cane", "un cagnolino", held_out=("un cagnolino",), parents=("dog",)),
    concept("corvo", parents=("bird",)),
    concept("aquilone", "un micio"),
])  # fmt: skip


def dev(place: int, shown: str, source: str = "tiny_imagenet", judged_as: str | None = None) -> Example:
    return Example(f"{place}.png", source, "dev", shown, judged_as=judged_as)


def test_a_score_for_each_source_and_one_for_broader_kinds(model: clipita.Model, root: Path) -> None:
    examples = [
        *(dev(i, name) for i, name in enumerate(("gatto", "cane", "corvo", "gatto"))),
        *(dev(i, name, "garments", judged_as="aquilone") for i, name in ((4, "gatto"), (5, "cane"))),
        Example("6.png", "garments", "train", "corvo"),
        Example("7.png", "flickr8k", "dev", captions=("A dog",)),
    ]
    first, garments, broader = evaluate(model, examples, root, SMALL, root / "cache")
    assert (first.task, first.photographs, first.labels) == ("tiny_imagenet", 4, 3)
    assert first.compared == 3  # of the cats and the dog, which have held-out phrasings
    assert (garments.task, garments.photographs, garments.labels) == ("garments", 2, 1)
    assert garments.top1 == 1
    assert garments.unseen is None
    assert (broader.task, broader.photographs, broader.labels) == ("broader kinds", 4, len(BROADER))

    images = model.encode_image([root / f"{i}.png" for i in range(4)])
    right = np.array([1, 0, 2, 1])  # classes stand in the order of the table, which has the cat before the dog

    def top1(labels: list[str], rows: list[int]) -> float:
        cosines = images @ model.label_bank(labels).embeddings.T
        order = {0: 1, 1: 0, 2: 2}
        return accuracy_at_k(cosines[rows], np.array([order[i] for i in right[rows]]), 1)

    assert first.top1 == top1(["un gatto", "un cane", "un corvo"], [0, 1, 2, 3])
    assert first.seen == top1(["un felino", "un cane", "un corvo"], [0, 1, 3])
    assert first.unseen == top1(["un micio", "un cagnolino", "un corvo"], [0, 1, 3])

    answers = model.zero_shot([root / f"{i}.png" for i in range(4)], ["un gatto", "un cane", "un corvo"])
    shown = ("un gatto", "un cane", "un corvo", "un gatto")
    right = [best.label == label for (best, *_), label in zip(answers, shown, strict=True)]
    expected = binned_by_hand([best.score for best, *_ in answers], right, 15)
    assert first.calibration_error == pytest.approx(expected)


def test_unreadable_photographs_are_left_out_and_a_wrong_root_is_an_error(model: clipita.Model, root: Path) -> None:
    (root / "1.png").write_bytes(b"no picture")
    examples = [dev(0, "gatto", "cats"), dev(1, "cane", "cats"), dev(2, "cane", "cats"), dev(99, "cane", "cats")]
    (score, *_) = evaluate(model, examples, root, SMALL)
    assert score.photographs == 2
    with pytest.raises(
        FileNotFoundError, match=r"no development photograph of 'cats' can be read under .*elsewhere, such as 0.png"
    ):
        evaluate(model, [dev(0, "gatto", "cats")], root / "elsewhere", SMALL)


def test_two_classes_with_one_phrase_are_both_asked_for(model: clipita.Model, root: Path) -> None:
    ontology = Ontology([
        concept("gatto", "un micio", held_out=("un micio",)),
        concept("gattino", "un micio", held_out=("un micio",)),
    ])  # fmt: skip
    (score,) = evaluate(model, [dev(0, "gatto", "cats"), dev(1, "gattino", "cats")], root, ontology)
    assert score.labels == 2
    assert score.unseen is not None


def test_who_stands_before_a_mountain_is_not_asked_for_among_mountains(model: clipita.Model, root: Path) -> None:
    def of_captions(place: int, *captions: str) -> Example:
        return Example(f"{place}.png", "flickr8k", "dev", captions=captions)

    examples = [
        of_captions(0, *["A man smiles"] * 5),
        of_captions(1, *["A man smiles"] * 4, "Someone on a mountainside"),
        of_captions(2, *["A man and his horses"] * 5),
        dev(3, "mountain", "corel1000"),
        of_captions(4, *["A dog on the beach"] * 5),
    ]
    ontology = load_ontology()
    sources = embed_sources(model, examples, root, ontology, root / "cache")
    asked = CrossSourceQuestion("", ("flickr8k", "corel1000"), ("person", "mountain", "beach"))
    question = across(asked, sources, ontology)
    assert question is not None
    assert question.photographs.paths == ("0.png", "2.png", "3.png")
    assert [ontology.concepts[question.classes[i]].id for i in question.right] == ["person", "person", "mountain"]


def test_broader_kinds_are_concepts_with_photographs_under_them() -> None:
    ontology = load_ontology()
    assert {*BROADER} <= {*ontology.index}
    kinds = [ontology.index[kind] for kind in BROADER]
    assert (ontology.ancestors[:, kinds].sum(0) > 1).all()


def test_the_table() -> None:
    scores = [
        Score("tiny_imagenet", 10000, 200, 0.6123, 0.8567, 0.0456, 0.5, 0.25, 120),
        Score("food4", 400, 4, 1.0, 1.0, 0.1),
    ]
    assert markdown(scores).splitlines() == [
        "| development set | photographs | labels | top-1 | top-5 | calibration error | seen words | unseen words |",
        "|---|---|---|---|---|---|---|---|",
        "| tiny_imagenet | 10000 | 200 | 61.2% | 85.7% | 0.046 | 50.0% of 120 | 25.0% |",
        "| food4 | 400 | 4 | 100.0% | 100.0% | 0.100 |  |  |",
    ]
    assert scores[1].to_json()["seen"] is None


def test_questions_across_sources_name_sources_and_kinds_that_exclude_one_another() -> None:
    ontology = load_ontology()
    for question in KINDS:
        assert set(question.sources) <= {source.name for source in COLLECTIONS}
        kinds = [ontology.index[kind] for kind in question.kinds]
        assert ontology.ancestors[np.ix_(kinds, kinds)].sum() == len(kinds), question.task


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, list[set[int]], int]:
    """Scores with many ties, relevant columns, and a k."""
    shape = st.tuples(st.integers(1, 6), st.integers(1, 7))
    scores = draw(hnp.arrays(np.int8, shape, elements=st.integers(-2, 2))).astype(np.float32)
    columns = st.sets(st.integers(0, scores.shape[1] - 1), min_size=1)
    return scores, [draw(columns) for _ in scores], draw(st.integers(1, 8))


@given(tables())
def test_retrieval_metrics_are_those_of_counting_by_hand(table: tuple[np.ndarray, list[set[int]], int]) -> None:
    scores, relevant, k = table
    places = []
    for row, wanted in zip(scores.tolist(), relevant, strict=True):
        best = max(row[i] for i in wanted)
        places.append(1 + sum(score >= best for i, score in enumerate(row) if i not in wanted))
    assert recall_at_k(scores, relevant, k) == pytest.approx(np.mean([place <= k for place in places]))
    assert mrr_at_k(scores, relevant, k) == pytest.approx(np.mean([(place <= k) / place for place in places]))


@given(tables())
def test_retrieval_metrics_have_their_order_and_need_no_scale(table: tuple[np.ndarray, list[set[int]], int]) -> None:
    scores, relevant, k = table
    assert 0 <= mrr_at_k(scores, relevant, k) <= recall_at_k(scores, relevant, k) <= 1
    assert mrr_at_k(scores, relevant, 1) == recall_at_k(scores, relevant, 1)
    assert mrr_at_k(scores, relevant, k) <= mrr_at_k(scores, relevant, k + 1)
    assert mrr_at_k(scores * 4 + 1, relevant, k) == mrr_at_k(scores, relevant, k)
    order = np.random.default_rng(0).permutation(scores.shape[1])
    moved = [{int(np.flatnonzero(order == column)[0]) for column in wanted} for wanted in relevant]
    assert mrr_at_k(scores[:, order], moved, k) == mrr_at_k(scores, relevant, k)


@given(tables())
def test_constant_scores_are_never_above_chance(table: tuple[np.ndarray, list[set[int]], int]) -> None:
    scores, relevant, k = table
    constant, gallery = np.zeros_like(scores), scores.shape[1]
    # Chance of at least one of r right columns among k drawn of G, and its mean reciprocal place.
    found, reciprocal = [], []
    for wanted in relevant:
        misses = [math.comb(gallery - len(wanted), j) / math.comb(gallery, j) for j in range(min(k, gallery) + 1)]
        found.append(1 - misses[-1])
        reciprocal.append(sum((misses[j] - misses[j + 1]) / (j + 1) for j in range(len(misses) - 1)))
    assert recall_at_k(constant, relevant, k) <= np.mean(found) + 1e-9
    assert mrr_at_k(constant, relevant, k) <= np.mean(reciprocal) + 1e-9


def test_one_relevant_column_may_be_given_as_an_array() -> None:
    scores = np.array([[0.1, 0.9, 0.5], [0.2, 0.3, 0.1]])
    assert mrr_at_k(scores, np.array([2, 1]), 5) == mrr_at_k(scores, [{2}, {1}], 5) == 0.75
    assert accuracy_at_k(scores, np.array([2, 1]), 1) == recall_at_k(scores, [[2], [1]], 1) == 0.5


@pytest.mark.parametrize(
    ("scores", "relevant", "k", "message"),
    [
        (np.zeros(3), [{0}] * 3, 1, r"expected scores \(Q, G\).*not \(3,\) and 3 sets"),
        (np.zeros((2, 3)), np.zeros(3, int), 1, r"not \(2, 3\) and \(3,\)"),
        (np.zeros((0, 3)), [], 1, r"Q >= 1, not \(0, 3\) and 0 sets"),
        (np.zeros((2, 3)), np.zeros((2, 1), int), 1, r"\(Q,\) integers or Q sets of them, not \(2, 1\) of int64"),
        (np.zeros((2, 3)), np.zeros(2), 1, r"not \(2,\) of float64"),
        (np.zeros((2, 3)), [{0}, set()], 1, "query 1 has no relevant item"),
        (np.zeros((2, 3)), [{0}, {1, 3}], 1, r"relevant\[1\] is 3, and there are 3 columns, from 0"),
        (np.zeros((2, 3)), np.array([0, -1]), 1, r"relevant\[1\] is -1"),
        (np.full((1, 2), np.nan), [{0}], 1, "scores hold NaN"),
        (np.zeros((2, 3)), [{0}, {1}], 0, "k must be at least 1, not 0"),
    ],
)
def test_what_cannot_be_retrieved(scores: np.ndarray, relevant: Relevant, k: int, message: str) -> None:
    for metric in (mrr_at_k, recall_at_k):
        with pytest.raises(ValueError, match=message):
            metric(scores, relevant, k)

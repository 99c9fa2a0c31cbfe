"""What is drawn, how often, and what counts as right, on a handful of concepts."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from clipita_train.concepts.batches import (
    ConceptBatches,
    Mix,
    relations,
    validation_batches,
)
from clipita_train.concepts.features import (
    ConceptFeatures,
    Groups,
    MatchedFeatures,
    PhotographFeatures,
    PhraseFeatures,
)
from clipita_train.data.concepts import Concept, Ontology
from clipita_train.losses.contrastive import softmax_contrastive

# animal <- dog <- labrador; animal and pet <- cat; car
IDS = {"animal": (), "pet": (), "dog": ("animal", "pet"), "labrador": ("dog",), "cat": ("animal", "pet"), "car": ()}
ONTOLOGY = Ontology([Concept(name, f"un {name}", "", (), parents, ()) for name, parents in IDS.items()])
ANIMAL, PET, DOG, LABRADOR, CAT, CAR = range(6)
WIDTH = 3
MIX = Mix(photographs=8, texts=4, words=2, captions=3, classifier_share=0.25)
rng = np.random.default_rng(0)


def photographs(concepts: list[int], boosts: list[float] | None = None) -> PhotographFeatures:
    """Features that name their place: the first number of row i is i."""
    features = np.zeros((len(concepts), WIDTH), np.float16)
    features[:, 0] = np.arange(len(concepts))
    return PhotographFeatures(features, np.array(concepts), None if boosts is None else np.array(boosts))


# Two texts of every concept but the car, of which there are three.
PHRASES = PhraseFeatures(rng.random((13, WIDTH)).astype(np.float16), np.array([*range(6), *range(6), CAR]))
SHOWN = photographs([DOG] * 4 + [CAT] * 2 + [CAR] * 10, [1.0] * 16)
ROWS = photographs([LABRADOR, CAR])
SPREAD = np.full(WIDTH, 0.1, np.float32)
PAIRS = MatchedFeatures(
    np.arange(10, dtype=np.float16)[:, None].repeat(WIDTH, 1),
    np.arange(20, dtype=np.float16)[:, None].repeat(WIDTH, 1),
    Groups([[0, 1], [2], [3, 4, 5], [6, 7], [8, 9]]),
    Groups([[10, 11], [12], [13, 14, 15], [16, 17], [18, 19]]),
)


FEATURES = ConceptFeatures(SHOWN, ROWS, SPREAD, PHRASES, PAIRS, PAIRS)


def make(mix: Mix = MIX, seed: int = 0, **changes: object) -> ConceptBatches:
    return ConceptBatches(ONTOLOGY, replace(FEATURES, **changes), mix, seed=seed)


def test_relations_by_hand() -> None:
    shown, named = np.array([LABRADOR, DOG, CAT, ANIMAL, CAR]), np.array([ANIMAL, PET, DOG, LABRADOR, CAT, CAR])
    positive, known = relations(ONTOLOGY, shown, named, own_weight=0.5)
    third = 0.5 / 3
    assert positive.dtype == np.float32
    np.testing.assert_allclose(
        positive,
        [
            [third, third, third, 0.5, 0, 0],
            [0.25, 0.25, 0.5, 0, 0, 0],
            [0.25, 0.25, 0, 0, 0.5, 0],
            [0.5, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0.5],
        ],
        rtol=1e-6,
    )
    # "A dog" may be a labrador, and "an animal" a dog, a labrador or a cat; that "an animal" is a pet counts as wrong.
    assert (~known).tolist() == [
        [False] * 6,
        [False, False, False, True, False, False],
        [False] * 6,
        [False, False, True, True, True, False],
        [False] * 6,
    ]
    assert known[positive > 0].all()


def test_the_weights_of_a_photograph_add_up_to_one_where_its_own_and_a_broader_concept_are_named() -> None:
    for own_weight in (0.2, 0.5, 0.9):
        positive, _ = relations(ONTOLOGY, np.array([LABRADOR, DOG, CAT]), np.arange(6), own_weight)
        np.testing.assert_allclose(positive.sum(1), 1, rtol=1e-6)
        np.testing.assert_allclose(positive[[0, 1, 2], [LABRADOR, DOG, CAT]], own_weight, rtol=1e-6)


def test_groups_draw_each_member_as_often() -> None:
    groups = Groups([[5], [7, 8, 9], [1, 2]])
    assert len(groups) == 3
    drawn = groups.draw(np.random.default_rng(0), np.repeat([0, 1, 2], 6000))
    assert set(drawn[:6000]) == {5}
    for members, part in (((7, 8, 9), drawn[6000:12000]), ((1, 2), drawn[12000:])):
        values, counts = np.unique(part, return_counts=True)
        assert tuple(values) == members
        assert abs(counts - 6000 / len(members)).max() < 5 * (6000 / len(members)) ** 0.5


def test_groups_by_value_may_be_empty() -> None:
    groups = Groups.by_value(np.array([2, 0, 2, 3, 2]), 5)
    assert groups.counts.tolist() == [1, 0, 3, 1, 0]
    assert {*groups.draw(np.random.default_rng(0), np.full(100, 2)).tolist()} == {0, 2, 4}
    assert groups.draw(np.random.default_rng(0), np.array([0, 3])).tolist() == [1, 3]


def test_pairs_come_from_different_groups_and_belong_together() -> None:
    left, right = PAIRS.draw(np.random.default_rng(0), 5)
    assert left.dtype == right.dtype == np.float32
    groups = {value: g for g, members in enumerate([[0, 1], [2], [3, 4, 5], [6, 7], [8, 9]]) for value in members}
    assert [groups[int(row[0])] for row in left] == [groups[int(row[0]) - 10] for row in right]
    assert len({groups[int(row[0])] for row in left}) == 5


def test_batches_are_the_same_again_and_go_on_from_a_state() -> None:
    first, second = make(), make()
    run = [next(first) for _ in range(4)]
    for a, b in zip(run, second, strict=False):
        assert all(np.array_equal(a[name], b[name]) for name in a)
    resumed = make()
    resumed.set_state(3)
    again = next(resumed)
    assert all(np.array_equal(again[name], run[3][name]) for name in again)
    assert resumed.get_state() == 4
    assert not np.array_equal(run[0]["images"], run[1]["images"])
    assert not np.array_equal(next(make(seed=1))["images"], run[0]["images"])


def test_shapes_and_types_never_change() -> None:
    batches = make()
    assert len(batches) == 2
    expected = {
        "images": ((6, WIDTH), np.float16),
        "imagined": ((2, WIDTH), np.float32),
        "text_features": ((4, WIDTH), np.float32),
        "positive": ((8, 4), np.float32),
        "known": ((8, 4), np.bool_),
        "word_left": ((2, WIDTH), np.float32),
        "word_right": ((2, WIDTH), np.float32),
        "caption_left": ((3, WIDTH), np.float32),
        "caption_right": ((3, WIDTH), np.float32),
    }
    for _ in range(30):
        assert {name: (values.shape, values.dtype.type) for name, values in next(batches).items()} == expected


def test_words_and_captions_only_where_there_are_any() -> None:
    assert next(make(words=None, captions=None)).keys() == {"images", "imagined", "text_features", "positive", "known"}
    assert "word_left" in next(make(captions=None))


def test_no_text_is_of_a_concept_that_no_photograph_can_be() -> None:
    batches = make(photographs=photographs([CAR] * 4, [1.0] * 4), classifier_rows=photographs([CAR]))
    batch = next(batches)
    assert batches.nameable.tolist() == [CAR]
    assert batch["positive"].shape == (8, 1)
    rest = make()
    assert rest.nameable.tolist() == [ANIMAL, PET, DOG, LABRADOR, CAT, CAR]


def test_photographs_are_drawn_concept_by_concept_by_the_root_of_their_number_and_boost() -> None:
    mix = replace(MIX, photographs=4000, classifier_share=0.0)

    def shares(boosts: list[float]) -> np.ndarray:
        batch = next(make(photographs=photographs([DOG] * 4 + [CAT] * 1 + [CAR] * 9, boosts), mix=mix))
        place = batch["images"][:, 0]
        return np.array([(place < 4).mean(), (place == 4).mean(), (place > 4).mean()])

    np.testing.assert_allclose(shares([1.0] * 14), np.array([2, 1, 3]) / 6, atol=0.03)
    np.testing.assert_allclose(shares([1.0] * 4 + [4.0] + [1.0] * 9), np.array([2, 4, 3]) / 9, atol=0.03)


def test_the_classifiers_rows_are_the_last_of_a_batch_and_never_negative() -> None:
    batch = next(make(mix=replace(MIX, photographs=200, classifier_share=0.5)))
    rows = batch["imagined"]
    assert len(rows) == len(batch["images"]) == 100
    assert (rows >= 0).all()
    assert 0.3 < (rows[:, 1] > 0).mean() < 0.7  # noise around 0, cut off there
    assert (batch["images"][:, 1] == 0).all()


def test_without_boosts_every_photograph_counts_once() -> None:
    listed = make()
    unlisted = make(photographs=PhotographFeatures(SHOWN.features, SHOWN.concepts))
    np.testing.assert_allclose(unlisted.weights, listed.weights)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16])
def test_validation_shows_every_photograph_once(count: int) -> None:
    held_back = photographs(([DOG, CAT, LABRADOR, CAR] * 4)[:count])
    batches = list(validation_batches(ONTOLOGY, held_back, PHRASES, MIX))
    places = np.concatenate([batch["images"][batch["mask"], 0] for batch in batches])
    assert places.tolist() == list(range(count))
    assert {batch["images"].shape for batch in batches} == {(8, WIDTH)}
    assert all(np.array_equal(batch["text_features"], batches[0]["text_features"]) for batch in batches)
    for batch in batches:
        assert not batch["known"][~batch["mask"]].any()
        assert (batch["positive"][batch["mask"]].max(1) >= 0.5).all()


@pytest.mark.slow
def test_padding_does_not_change_the_validation_loss() -> None:
    held_back = photographs([DOG, CAT, CAR])
    (padded,) = validation_batches(ONTOLOGY, held_back, PHRASES, MIX)
    (exact,) = validation_batches(ONTOLOGY, held_back, PHRASES, replace(MIX, photographs=3))

    def loss(batch: dict[str, np.ndarray]) -> float:
        values = {name: jnp.asarray(batch[name]) for name in ("positive", "known")}
        return float(
            softmax_contrastive(batch["images"].astype(np.float32), batch["text_features"], logit_scale=2.0, **values)
        )

    assert loss(padded) == pytest.approx(loss(exact), rel=1e-6)

import pytest
from clipita_train.data.captions.draw import caption_at
from clipita_train.data.captions.sides import names_a_side
from clipita_train.data.captions.subjects import person_or_dog, things_named


@pytest.mark.parametrize(
    ("captions", "concept"),
    [
        (["A man rides", "a guy on a bike", "The man falls", "someone", "a rider"], "man"),
        (["A man and a woman talk"] * 5, "person"),
        (["A group of people"] * 3 + ["a band", "musicians"], "group_of_people"),
        (["A dog runs", "Two dogs play", "a brown dog", "an animal", "it runs"], "dog"),
        (["A man walks his dog"] * 5, None),  # who is it a photograph of?
        (["A dog runs"] * 4 + ["a dog and its woman"], None),
        (["A man", "a man", "a climber", "a person", "somebody"], None),  # too few agree
        (["A snowman in Germany"] * 5, None),  # whole words only
        ([], None),
    ],
)
def test_captions_that_agree_name_a_concept(captions: list[str], concept: str | None) -> None:
    assert person_or_dog(captions) == concept


def test_every_caption_has_its_turn_whatever_else_is_drawn():
    captions = ["un gatto", "un gatto nero", "un felino"]
    drawn = [caption_at(captions, id=7, step=step) for step in range(3000)]
    assert drawn == [caption_at(captions, id=7, step=step) for step in range(3000)]
    for caption in captions:
        assert abs(drawn.count(caption) / 3000 - 1 / 3) < 0.035  # 4 standard deviations
    assert drawn != [caption_at(captions, id=8, step=step) for step in range(3000)]
    assert drawn != [caption_at(captions, id=7, step=step, seed=1) for step in range(3000)]


def test_validation_draws_nothing():
    assert {caption_at(["prima", "seconda"], id=i, step=None, seed=i) for i in range(50)} == {"prima"}


def test_a_photograph_without_captions():
    with pytest.raises(ValueError, match="photograph 3 has no caption"):
        caption_at([], id=3, step=0)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("Un cane a destra di un gatto", True),
        ("La mano SINISTRA alzata", True),
        ("l'uomo sul lato destro", True),
        ("due porte sinistre", True),
        ("un gesto maldestro", False),  # whole words only
        ("un mancino con destrezza", False),
        ("un gatto nero", False),
    ],
)
def test_captions_that_name_a_side(caption, expected):
    assert names_a_side(caption) == expected


def test_things_that_captions_name() -> None:
    assert things_named(["A man walks", "Two people on a beach", "He is near Mountains and cars"]) == (
        "beach",
        "car",
        "mountain",
    )
    assert things_named(["A seashell on a busy cartoon carpet", "scattered planets"]) == ()
    assert things_named([]) == ()

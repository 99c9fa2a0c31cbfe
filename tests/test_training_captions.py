import pytest

from training.data.captions import person_or_dog


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

import numpy as np
import pytest
from clipita_train.data.audit.agreement import audit, category_weights

NONE = float("nan")
MARKS = np.array(
    [
        [4, 3, 4], [2, 4, 2], [4, 3, 3], [4, NONE, 4], [3, 4, 4], [4, 4, 4], [4, 4, 4], [NONE, 2, NONE], [2, 1, 1],
        [1, 2, 1], [1, 2, 3], [4, 4, 4], [4, 4, 4], [1, 1, 1], [2, 1, 3], [3, 3, 3], [2, 2, 2], [3, 4, 4], [1, 1, 1],
        [3, 2, 1],
    ]
)  # fmt: skip
# Computed by irrCAC 0.4.4, CAC(marks, weights=..., digits=12).gwet(). It asks for NumPy 1, so it cannot be installed
# beside JAX.
GOLDEN = {
    "ordinal": (0.711886850108, 0.498406039953, 0.925367660264),
    "identity": (0.46777054997, 0.195933607329, 0.739607492612),
}


@pytest.mark.parametrize("weights", GOLDEN)
def test_agreement_is_that_of_irrcac(weights: str) -> None:
    agreement = audit(MARKS, [1, 2, 3, 4], weights=weights).agreement
    assert (agreement.value, agreement.low, agreement.high) == pytest.approx(GOLDEN[weights], abs=1e-9)


def test_the_mean_is_of_all_marks() -> None:
    mean = audit(MARKS, [1, 2, 3, 4]).mean
    assert mean.value == pytest.approx(np.nanmean(MARKS))
    assert mean.low < mean.value < mean.high


def test_raters_who_agree_and_a_category_that_nobody_gave() -> None:
    marks = np.array([[1.0, 1], [2, 2], [1, 1]])
    assert audit(marks, [1, 2, 3]).agreement.value == pytest.approx(1)
    wide = np.array([[1.0, 2], [2, 2], [1, 1]])
    assert audit(wide, [1, 2, 3]).agreement.value != audit(wide, [1, 2]).agreement.value


def test_weights() -> None:
    assert category_weights(4, "ordinal")[0].tolist() == pytest.approx([1, 5 / 6, 0.5, 0])


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        ([[1.0, 5], [1, 1]], "a mark of 5.0 is not on the scale 1, 2"),
        ([[NONE, NONE], [1, 1]], "every item needs a mark"),
        ([[NONE, 1], [1, NONE]], "at least one item needs two"),
        ([[1.0, 1]], "two items or more"),
    ],
)
def test_sheets_that_cannot_be_judged(marks: list[list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        audit(np.array(marks), [1, 2])

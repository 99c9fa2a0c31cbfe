"""What is chosen on one half is judged on the other: logit scales, signals and thresholds, and the command."""

import json
import math
from pathlib import Path

import clipita_train.cli
import numpy as np
import pytest
from click.testing import CliRunner
from clipita_train.data.concepts import load_ontology
from clipita_train.data.photographs.example import Example
from clipita_train.evaluate.calibration import RECOMMENDED, REFUSED, SIGNALS, QuestionCosines, ask, judge, markdown
from clipita_train.evaluate.metrics import area_under_curve, expected_calibration_error
from clipita_train.evaluate.tasks import TEN, EmbeddedPhotographs
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.tiny import make_tiny_bundle

import clipita
from clipita.zero_shot import probabilities

FOOD = next(kinds for kinds in TEN if "food4" in kinds.sources)
SCORES = st.lists(st.integers(-3, 3), min_size=1, max_size=12)


@given(SCORES, SCORES)
def test_area_is_that_of_comparing_all_pairs(higher: list[int], lower: list[int]) -> None:
    won = sum((one > other) + (one == other) / 2 for one in higher for other in lower)
    assert area_under_curve(np.array(higher), np.array(lower)) == pytest.approx(won / len(higher) / len(lower))


def test_what_has_no_area() -> None:
    for sides in ((np.zeros(0), np.zeros(1)), (np.zeros(1), np.zeros(0)), (np.array([np.nan]), np.zeros(1))):
        with pytest.raises(ValueError, match="expected scores on both sides and no NaN"):
            area_under_curve(*sides)


def test_signals_by_hand() -> None:
    cosines = np.array([[0.5, 0.1, 0.3], [0.2, 0.2, 0.2]], np.float32)
    found = [signal(cosines, 10.0) for signal in SIGNALS.values()]
    best = math.exp(5) / (math.exp(5) + math.exp(1) + math.exp(3))
    energy = math.log(math.exp(5) + math.exp(1) + math.exp(3)) / 10
    expected = [(0.5, 0.2), (best, 1 / 3), (0.2, 0), (energy, 0.2 + math.log(3) / 10)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_near_ones_are_asked_without_their_own_label() -> None:
    known = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]]) / 10
    question = QuestionCosines("", known, np.array([0, 2, 1]), np.ones(3, bool), known, np.ones(3, bool))
    np.testing.assert_array_equal(question.near, np.array([[2, 3], [4, 5], [7, 9]]) / 10)


def a_question(seed: int, scale: float, count: int = 6000) -> QuestionCosines:
    """Right labels are drawn from the softmax of the cosines with this scale, so that no other is as well calibrated;
    far ones have lower cosines."""
    rng = np.random.default_rng(seed)
    known = np.clip(0.15 * rng.normal(size=(count, 10)), -1, 1)
    right = (probabilities(known, scale).cumsum(1) > rng.random((count, 1))).argmax(1)
    far = np.clip(0.15 * rng.normal(size=(count // 2, 10)) - 0.2, -1, 1)
    return QuestionCosines(f"seed {seed}", known, right, rng.random(count) < 0.5, far, rng.random(count // 2) < 0.5)


def test_the_scale_that_answers_were_drawn_with_is_found_and_calibrated() -> None:
    asked = [a_question(seed, 25.0) for seed in (0, 1)]
    report = judge(asked, 60.0)
    assert report.chosen_scale == pytest.approx(25, abs=2)
    for question, found in zip(asked, report.calibration, strict=True):
        judging = ~question.chooses
        assert (found.task, found.photographs) == (question.task, judging.sum())
        scores = probabilities(question.known[judging], 60.0)
        assert found.own == expected_calibration_error(scores, question.right[judging])
        assert found.chosen < 0.03 < found.own


def test_thresholds_refuse_what_they_aim_at_and_are_judged_on_the_other_half() -> None:
    asked = [a_question(seed, 25.0) for seed in (0, 1)]
    report = judge(asked, 25.0)
    assert len(report.refusals) == len(SIGNALS) * len(REFUSED) * len(asked)
    for found in report.refusals:
        question = next(one for one in asked if one.task == found.task)
        signal = SIGNALS[found.signal]
        for half in (question.half(True), question.half(False)):
            near, far = (signal(cosines, 25.0) < found.threshold for cosines in (half.near, half.far))
            assert (near.mean() + far.mean()) / 2 == pytest.approx(found.aimed, abs=0.02)
        assert (found.near, found.far) == (near.mean(), far.mean())
        assert found.wrongly == (signal(question.half(False).known, 25.0) < found.threshold).mean()
    halves = [question.half(False) for question in asked]
    by_hand = np.mean([area_under_curve(half.known.max(1), half.far.max(1)) for half in halves])
    assert report.areas["best cosine"][1] == pytest.approx(by_hand)
    text = markdown(report)
    assert text.count("| mean |") == len(REFUSED)
    assert f"| question | {RECOMMENDED} below |" in text


@pytest.mark.filterwarnings("ignore:.*are longer than .* tokens")  # the tiny model reads single letters
def test_far_ones_show_nothing_of_what_is_asked_for(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path / "tiny", "float32")
    model, ontology, rng = clipita.load(tmp_path / "tiny"), load_ontology(), np.random.default_rng(0)

    def photographs(name: str, *shown: str, captioned: bool = False) -> EmbeddedPhotographs:
        images = rng.normal(size=(len(shown), model.embed_dim)).astype(np.float32)
        places = np.array([ontology.index[concept] for concept in shown])
        return EmbeddedPhotographs(
            tuple(f"{name}/{i}" for i in range(len(shown))), images, places, captioned, ((),) * len(shown)
        )

    sources = {
        "food4": photographs("food4", "hamburger", "pasta"),
        "animals8": photographs("animals8", "cat", "food", "apple"),  # food may be the pasta, and an apple is asked for
        "flickr8k": photographs("flickr8k", "person", captioned=True),
    }
    food = next(question for question in ask(model, sources, ontology) if question.task == "ten: food and others")
    assert food.known.shape == (2, 10)
    labels = model.label_bank([ontology[kind].label for kind in ("hamburger", "pasta")]).embeddings
    images = sources["food4"].images
    np.testing.assert_allclose(food.known[[0, 1], food.right], (images * labels).sum(1), rtol=1e-5)
    assert food.far.shape == (1, 10)
    bank = model.label_bank([ontology.concepts[k].label for k in sorted(ontology.index[kind] for kind in FOOD.kinds)])
    np.testing.assert_allclose(food.far[0], bank.embeddings @ sources["animals8"].images[0], rtol=1e-4, atol=1e-6)
    with pytest.raises(FileNotFoundError, match="no photograph of a question with ten labels"):
        ask(model, {}, ontology)


@pytest.mark.filterwarnings("ignore:.*are longer than .* tokens")  # the tiny model reads single letters
def test_the_command(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path / "tiny", "float32")
    rng = np.random.default_rng(0)
    examples = []
    for i in range(60):
        Image.fromarray(rng.integers(0, 256, (44, 50, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        known = i < 30
        shown = FOOD.kinds[i % 10] if known else "cat"
        examples.append(Example(f"{i}.png", "food4" if known else "caltech101", "dev", shown))
    (tmp_path / "manifest.jsonl").write_text("".join(f"{json.dumps(e.to_json())}\n" for e in examples), "utf-8")
    arguments = ["evaluate", "certainty", f"--model={tmp_path}/tiny", f"--root={tmp_path}", f"--work={tmp_path}"]
    result = CliRunner().invoke(clipita_train.cli.main, [*arguments, f"--out={tmp_path}/certainty"])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "certainty.json").read_text("utf-8"))
    assert {row["task"] for row in found["calibration"]} == {FOOD.task}
    assert {*found["areas"]} == {*SIGNALS}
    assert (tmp_path / "certainty.md").read_text("utf-8") in result.output

    (tmp_path / "manifest.jsonl").write_text(
        json.dumps(Example("0.png", "caltech101", "dev", "cat").to_json()), "utf-8"
    )
    nothing = CliRunner().invoke(clipita_train.cli.main, arguments)
    assert "no photograph of a question with ten labels can be read" in nothing.output

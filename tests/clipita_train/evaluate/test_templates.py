"""Templates are chosen for what they add, and the choice stops where they add nothing."""

import json
from dataclasses import asdict
from pathlib import Path

import clipita_train.cli
import numpy as np
import pytest
from click.testing import CliRunner
from clipita_train.data.photographs.example import Example
from clipita_train.evaluate import templates
from clipita_train.evaluate.templates import CANDIDATES, DevelopmentSet, choose, markdown, measure
from PIL import Image
from support.tiny import make_tiny_bundle

from clipita.text import italian


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def a_task(seed: int, noise: dict[int, float], count: int = 3000) -> DevelopmentSet:
    """Images around 20 centres; the text of template t is the centre with noise of its own, one unless it is said."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.normal(size=(20, 16)))
    shown = rng.integers(20, size=count)
    images = unit(centres[shown] + 0.2 * rng.normal(size=(count, 16)))
    each = [unit(centres + noise.get(t, 1.0) * rng.normal(size=(20, 16))) for t in range(len(CANDIDATES))]
    return DevelopmentSet(images, shown, rng.random(count) < 0.5, np.stack(each))


def test_the_good_ones_are_chosen_and_more_only_while_they_help() -> None:
    noise = {5: 0.12, 11: 0.12, 30: 0.12}
    sets = [a_task(0, noise), a_task(1, noise)]
    steps = choose(sets, 20.0)
    chosen = [CANDIDATES.index(name) for name in steps[-1].templates]
    assert set(chosen) == {5, 11, 30}
    assert [len(step.templates) for step in steps] == [1, 2, 3]
    losses = [step.loss_chosen_on for step in steps]
    assert losses == sorted(losses, reverse=True)
    everything = measure(sets, 20.0, range(len(CANDIDATES)))
    assert steps[-1].loss_held_out < everything.loss_held_out
    assert steps[-1] == measure(sets, 20.0, chosen)


def test_a_measure_is_of_its_half() -> None:
    task = a_task(2, {0: 0.3}, count=400)
    step = measure([task], 10.0, [0])
    logits = 10 * task.images @ task.texts[0].T
    loss = np.log(np.exp(logits).sum(1)) - logits[np.arange(400), task.shown]
    right = logits.argmax(1) == task.shown
    assert step.loss_chosen_on == pytest.approx(loss[task.chooses].mean())
    assert step.loss_held_out == pytest.approx(loss[~task.chooses].mean())
    assert step.top1_chosen_on == pytest.approx(right[task.chooses].mean())
    assert step.top1_held_out == pytest.approx(right[~task.chooses].mean())
    assert "all 38" in markdown([step], [measure([task], 10.0, range(38))])


def test_candidates_differ_and_those_that_are_shipped_are_of_them() -> None:
    assert len(CANDIDATES) == len(set(CANDIDATES)) == 38
    assert all(template.count("{}") == 1 for template in CANDIDATES)
    assert {*italian.TEMPLATES} <= {*CANDIDATES}


@pytest.mark.filterwarnings("ignore:.*are longer than .* tokens")  # the tiny model reads single letters
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tiny_bundle(tmp_path / "tiny", "float32")
    rng = np.random.default_rng(0)
    examples = []
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (44, 50, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        source, concept = ("tiny_imagenet", "caltech101")[i % 2], ("n02123045", "n01443537", "n02128385")[i % 3]
        examples.append(Example(f"{i}.png", source, "dev", concept))
    (tmp_path / "manifest.jsonl").write_text("".join(f"{json.dumps(e.to_json())}\n" for e in examples), "utf-8")
    monkeypatch.setattr(templates, "CANDIDATES", CANDIDATES[:3])
    arguments = ["evaluate", "templates", f"--model={tmp_path}/tiny", f"--root={tmp_path}", f"--work={tmp_path}"]
    result = CliRunner().invoke(clipita_train.cli.main, [*arguments, f"--out={tmp_path}/chosen"])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "chosen.json").read_text("utf-8"))
    assert set(found["chosen"]) <= {*CANDIDATES[:3]}
    assert found["steps"][-1]["templates"] == found["chosen"]
    assert {*found["steps"][0]} == {*asdict(templates.TemplateChoice((), 0, 0, 0, 0))}

    empty = CliRunner().invoke(clipita_train.cli.main, [*arguments[:3], "--root=/nowhere", arguments[4]])
    assert "no development photograph of 'tiny_imagenet' can be read under /nowhere" in empty.output

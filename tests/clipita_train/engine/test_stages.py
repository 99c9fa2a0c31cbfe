import math

import pytest
from clipita_train.engine.config import ParameterRule, StageConfig
from clipita_train.engine.stages import Progress, total_steps


def make_stage(**changes):
    return StageConfig("prova", (ParameterRule(".*"),), 1e-3, 8, **changes)


def follow(losses, stage, last_step=1000):
    progress, history = Progress(), []
    for step, loss in enumerate(losses):
        progress = progress.after(step * 10, loss, stage=stage, total_steps=last_step)
        history.append(progress)
    return history


def test_the_first_of_equal_losses_is_best():
    assert follow([3.0, 2.0, 2.0, 2.5], make_stage())[-1] == Progress(10, 2.0, waiting=2, finished=False)


def test_patience_counts_evaluations_since_the_best():
    history = follow([3.0, 3.1, 2.9, 2.9, 3.0, 2.0], make_stage(patience=2))
    assert [progress.finished for progress in history[:5]] == [False, False, False, False, True]


def test_the_last_step_ends_the_stage():
    assert [progress.finished for progress in follow([3.0, 2.0, 1.0], make_stage(), last_step=20)] == [
        False,
        False,
        True,
    ]
    assert Progress().best_loss == math.inf


def test_steps_come_from_epochs_or_are_given():
    assert total_steps(make_stage(epochs=2.5), range(7)) == 18
    assert total_steps(make_stage(epochs=0.01), range(7)) == 1
    assert total_steps(make_stage(epochs=2.5, steps=4), iter([])) == 4
    with pytest.raises(TypeError, match=r"'prova' lasts 2\.5 epochs.*__len__"):
        total_steps(make_stage(epochs=2.5), iter([]))

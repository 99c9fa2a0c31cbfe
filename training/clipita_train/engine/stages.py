"""Decide when a stage ends, and which of its weights are best."""

import math
from collections.abc import Iterator, Sized
from dataclasses import dataclass, replace
from typing import Any

from clipita_train.engine.config import StageConfig


@dataclass(frozen=True)
class Progress:
    """The results of the evaluations of a stage so far; saved in every checkpoint.

    Attributes:
        best_step: The step with the lowest validation loss, the first of equals.
        best_loss: That loss; infinite before the first evaluation.
        waiting: How many evaluations there were since then.
        finished: Whether the stage is over.
    """

    best_step: int = 0
    best_loss: float = math.inf
    waiting: int = 0
    finished: bool = False

    def after(self, step: int, loss: float, *, stage: StageConfig, total_steps: int) -> "Progress":
        """Return the progress after an evaluation at this step."""
        if loss < self.best_loss:
            progress = Progress(best_step=step, best_loss=loss)
        else:
            progress = replace(self, waiting=self.waiting + 1)
        out_of_patience = stage.patience is not None and progress.waiting >= stage.patience
        return replace(progress, finished=step >= total_steps or out_of_patience)


def total_steps(stage: StageConfig, batches: Iterator[Any]) -> int:
    """Return how many updates the stage makes if it is not stopped early.

    Raises:
        TypeError: The stage counts epochs, and the batches have no length.
    """
    if stage.steps is not None:
        return stage.steps
    if not isinstance(batches, Sized):
        raise TypeError(
            f"stage {stage.name!r} lasts {stage.epochs} epochs, but len() of its training batches is unknown: "
            "give the iterator a __len__ (batches in an epoch) or the stage a number of steps"
        )
    return max(1, math.ceil(stage.epochs * len(batches)))

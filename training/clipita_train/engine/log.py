"""What a run tells: one JSON object a line in its metrics file, and a progress bar."""

import json
import os
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from clipita_train.engine.config import TrainConfig
from clipita_train.engine.files import written_whole
from clipita_train.engine.step import Metrics, NonFiniteLossError


class MetricsFile:
    """Lines with "stage" (index), "step", "split" and numbers, in the order they came; the first process writes."""

    def __init__(self, path: Path, *, keep_until: tuple[int, int], board: Path | None = None) -> None:
        """Appends to the lines up to this (stage, step); drops later ones, and one that a kill has cut short.

        With `board`, a folder, the same numbers go there for TensorBoard, a run for each stage.
        """
        self._writes = jax.process_index() == 0
        self._board = Board(board, keep_until) if board is not None and self._writes else None
        if self._writes and path.exists():
            _truncate(path, keep_until)
        self._file = (path if self._writes else Path(os.devnull)).open("a", encoding="utf-8")

    def __enter__(self) -> "MetricsFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()

    def write(self, *, stage: int, step: int, split: str, **values: Any) -> None:
        self._file.write(json.dumps({"stage": stage, "step": step, "split": split, **values}) + "\n")
        self._file.flush()
        if self._board is not None:
            self._board.write(stage, step, split, values)

    def sync(self) -> None:
        """Forces the lines to disk. A checkpoint must not outlive the lines that led to it."""
        if self._writes:
            os.fsync(self._file.fileno())


class Board:
    """TensorBoard's event files, `<folder>/<stage>`; a resumed run takes the place of what came after its checkpoint.

    Raises:
        ModuleNotFoundError: what writes them is not installed.
    """

    def __init__(self, folder: Path, keep_until: tuple[int, int]) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ModuleNotFoundError:
            raise ModuleNotFoundError("files for TensorBoard need: pip install 'clipita[tensorboard]'") from None
        self._open, self._folder, self._keep_until = SummaryWriter, folder, keep_until
        self._writers: dict[int, Any] = {}

    def write(self, stage: int, step: int, split: str, values: dict[str, Any]) -> None:
        if stage not in self._writers:
            first, last = self._keep_until
            later = last + 1 if stage == first else 0 if stage > first else None
            self._writers[stage] = self._open(str(self._folder / str(stage)), purge_step=later)
        for name, value in values.items():
            self._writers[stage].add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()


def _truncate(path: Path, last: tuple[int, int]) -> None:
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        values = json.loads(line)
        if (values["stage"], values["step"]) > last:
            break
        kept.append(line)
    with written_whole(path) as partial:
        partial.write_text("".join(kept), encoding="utf-8")


class StepLog:
    """Reports the steps of a stage, each one step late: while its numbers are read the device works on the next."""

    def __init__(
        self, metrics: MetricsFile, config: TrainConfig, index: int, step: int, last_step: int, *, show_progress: bool
    ) -> None:
        self.metrics, self.config, self.index, self.stage = metrics, config, index, config.stages[index]
        self._waiting: tuple[int, Metrics, Any] | None = None
        self._bar = tqdm(
            total=last_step * self.stage.batch_size,
            initial=step * self.stage.batch_size,
            desc=self.stage.name,
            unit="ex",
            unit_scale=True,
            disable=None if show_progress and jax.process_index() == 0 else True,  # None: where there is a terminal
        )

    def __enter__(self) -> "StepLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def push(self, step: int, values: Metrics, ids: Any) -> None:
        """Takes the metrics of a step that has been started, and reports the one before."""
        self.flush()
        self._waiting = (step, values, ids)

    def flush(self) -> None:
        """Reports the step that is waiting, if any.

        Raises:
            NonFiniteLossError: its loss or gradients were not finite.
        """
        if self._waiting is None:
            return
        step, values, ids = self._waiting
        self._waiting = None
        numbers = {name: value.item() for name, value in jax.device_get(values).items()}
        if not numbers.pop("finite"):
            raise NonFiniteLossError(f"stage {self.stage.name!r}, training step {step}", numbers, ids)
        self._bar.update(self.stage.batch_size)
        if step % self.config.log_every == 0:
            self._bar.set_postfix(step=step, loss=f"{numbers['loss']:.4f}", refresh=False)
            self.metrics.write(stage=self.index, step=step, split="train", **numbers)

"""Write the metrics of a run to a file, one JSON object a line, and show its progress."""

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
    """The metrics of a run, in the order in which they came; the first process writes them.

    Each line has "stage" (its index), "step", "split" and numbers.
    """

    def __init__(self, path: Path, *, keep_until: tuple[int, int], board: Path | None = None) -> None:
        """Open the file to append to it.

        Args:
            path: The file.
            keep_until: (stage, step) of the last line to keep. Later lines are dropped, and a line that a kill has cut
                off.
            board: A folder to which the same numbers are written for TensorBoard, or None.
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
        """Write a line."""
        self._file.write(json.dumps({"stage": stage, "step": step, "split": split, **values}) + "\n")
        self._file.flush()
        if self._board is not None:
            self._board.write(stage, step, split, values)

    def sync(self) -> None:
        """Force the lines to disk, since a checkpoint must not outlive the lines that led to it."""
        if self._writes:
            os.fsync(self._file.fileno())


class Board:
    """The files for TensorBoard, `<folder>/<stage>`; a resumed run replaces what came after its checkpoint.

    Raises:
        ModuleNotFoundError: tensorboardX is not installed.
    """

    def __init__(self, folder: Path, keep_until: tuple[int, int]) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ModuleNotFoundError:
            raise ModuleNotFoundError("files for TensorBoard need: pip install 'clipita[tensorboard]'") from None
        self._open, self._folder, self._keep_until = SummaryWriter, folder, keep_until
        self._writers: dict[int, Any] = {}

    def write(self, stage: int, step: int, split: str, values: dict[str, Any]) -> None:
        """Write the values of a step."""
        if stage not in self._writers:
            first, last = self._keep_until
            later = last + 1 if stage == first else 0 if stage > first else None
            self._writers[stage] = self._open(str(self._folder / str(stage)), purge_step=later)
        for name, value in values.items():
            self._writers[stage].add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        """Close all files."""
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
    """Report the steps of a stage, each one step late, so that the device can work while numbers are read."""

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
            disable=None if show_progress and jax.process_index() == 0 else True,  # None: only in a terminal
        )

    def __enter__(self) -> "StepLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def push(self, step: int, values: Metrics, ids: Any) -> None:
        """Take the metrics of a step that was started, and report the step before."""
        self.flush()
        self._waiting = (step, values, ids)

    def flush(self) -> None:
        """Report the step that is waiting, if there is one.

        Raises:
            NonFiniteLossError: Its loss or gradients were not finite.
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

"""The metrics file of a run: one JSON object a line."""

import json
import os
from pathlib import Path
from typing import Any


class MetricsFile:
    """Appends lines with "stage" (index), "step" and "split"; on resume it forgets what came after the checkpoint."""

    def __init__(self, path: Path, *, resumed_at: tuple[int, int] | None = None) -> None:
        """`resumed_at`: (stage, step) of the checkpoint; later lines, and one cut short by a kill, are dropped."""
        if resumed_at is not None and path.exists():
            _keep_until(path, resumed_at)
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> "MetricsFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, *, stage: int, step: int, split: str, **values: Any) -> None:
        self._file.write(json.dumps({"stage": stage, "step": step, "split": split, **values}) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Forces the lines to disk. Called before a checkpoint, which must not outlive the lines that led to it."""
        os.fsync(self._file.fileno())


def _keep_until(path: Path, last: tuple[int, int]) -> None:
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        values = json.loads(line)
        if (values["stage"], values["step"]) > last:
            break
        kept.append(line)
    partial = path.with_suffix(".partial")
    partial.write_text("".join(kept), encoding="utf-8")
    os.replace(partial, path)

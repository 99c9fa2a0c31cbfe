"""Checkpoints of one stage: model, optimizer, data position and progress together, or nothing."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import PreservationPolicy

from training.stages import Progress
from training.state import TrainState


class Checkpoints:
    """The checkpoints in `<out_dir>/checkpoints/<index>-<stage>/<step>`.

    Orbax writes into a temporary folder and renames it when complete, so a killed run leaves whole checkpoints only.
    Kept are the latest `keep` and the one with the lowest validation loss. Writing goes on in the background; leave by
    `with`, which waits for it.
    """

    def __init__(self, out_dir: Path, index: int, name: str, *, keep: int = 1) -> None:
        options = ocp.CheckpointManagerOptions(preservation_policy=_LatestAndBest(keep), cleanup_tmp_directories=True)
        self.folder = out_dir.absolute() / "checkpoints" / f"{index}-{name}"
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def latest_step(self) -> int | None:
        """The step of the last whole checkpoint."""
        return self._manager.latest_step()

    def save(self, state: TrainState, iterator_state: Any, progress: Progress, *, loss: float | None) -> None:
        """Saves under the state's step, unless that is there already.

        Args:
            iterator_state: what the training batches return from `get_state()`; JSON-serialisable.
            loss: validation loss at this step; None where it was not evaluated.
        """
        step = int(state.step)
        if step == self.latest_step():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                model=ocp.args.StandardSave({"params": state.params, "rest": state.rest}),
                training=ocp.args.StandardSave(_all_but_model(state)),
                host=ocp.args.JsonSave({"iterator": iterator_state, "progress": progress.to_dict()}),
            ),
            metrics=None if loss is None else {"loss": loss},
        )

    def restore(self, step: int, like: TrainState) -> tuple[TrainState, Any, Progress]:
        """(state, iterator state, progress) as saved; `like` gives shapes, dtypes and placement on devices."""
        model, training = {"params": like.params, "rest": like.rest}, _all_but_model(like)
        saved = self._manager.restore(
            step,
            args=ocp.args.Composite(
                model=ocp.args.StandardRestore(_abstract(model)),
                training=ocp.args.StandardRestore(_abstract(training)),
                host=ocp.args.JsonRestore(),
            ),
        )
        state = TrainState(**saved["model"], **saved["training"])
        return state, saved["host"]["iterator"], Progress(**saved["host"]["progress"])

    def progress(self, step: int) -> Progress:
        """The progress saved at this step."""
        host = self._manager.restore(step, args=ocp.args.Composite(host=ocp.args.JsonRestore()))["host"]
        return Progress(**host["progress"])

    def restore_model(self, step: int, params: Any, rest: Any) -> tuple[Any, Any]:
        """(params, rest) as saved, without the optimizer's state; the arguments give shapes, dtypes and placement."""
        like = _abstract({"params": params, "rest": rest})
        args = ocp.args.Composite(model=ocp.args.StandardRestore(like))
        model = self._manager.restore(step, args=args)["model"]
        return model["params"], model["rest"]


class _LatestAndBest(PreservationPolicy):
    def __init__(self, keep: int) -> None:
        self.keep = keep

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        evaluated = [checkpoint for checkpoint in checkpoints if checkpoint.metrics is not None]
        best = min(evaluated, key=lambda checkpoint: checkpoint.metrics["loss"], default=None)  # the first of equals
        latest = checkpoints[-self.keep :]
        return [checkpoint is best or checkpoint in latest for checkpoint in checkpoints]


def _all_but_model(state: TrainState) -> dict[str, Any]:
    return {"stage": state.stage, "step": state.step, "opt_state": state.opt_state, "key": state.key}


def _abstract(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree)

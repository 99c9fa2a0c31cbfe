"""Save and restore checkpoints, and claim the folder of a run.

A checkpoint holds the model, the optimizer, the position in the data and the progress of a stage.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, assert_never

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import PreservationPolicy

from clipita_train.engine.config import TrainConfig
from clipita_train.engine.mesh import wait_for_all
from clipita_train.engine.stages import Progress
from clipita_train.engine.state import TrainState

CONFIG = "config.json"


def stage_folder(out_dir: Path, index: int, name: str) -> Path:
    """Return the folder of the checkpoints of a stage."""
    return out_dir.absolute() / "checkpoints" / f"{index}-{name}"


class CheckpointWriteError(OSError):
    """A checkpoint could not be written, e.g. because the disk is full; earlier ones are complete."""


class Checkpoints:
    """The checkpoints of one stage, in `<out_dir>/checkpoints/<index>-<stage>/<step>`.

    Orbax writes into a temporary folder and renames it when it is complete, so that a killed run leaves only complete
    checkpoints. Kept are the latest `keep` checkpoints, and the one with the lowest validation loss. Writing goes on in
    the background; leaving a `with` block waits for it.
    """

    def __init__(
        self, out_dir: Path, index: int, name: str, *, keep: int = 1, about: Mapping[str, Any] | None = None
    ) -> None:
        """Open the checkpoints of a stage; `about` says what made them, and is saved beside each."""
        self._about = dict(about or {})
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_LatestAndBest(keep),
            best_fn=lambda metrics: metrics[
                "loss"
            ],  # without it Orbax would not save the losses, and a resumed run would not know them
            best_mode="min",
            cleanup_tmp_directories=True,
        )
        self._folder = stage_folder(out_dir, index, name)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Wait for what is being written.

        Raises:
            CheckpointWriteError: It could not be written.
        """
        with suppress(CheckpointWriteError) if kind is not None else nullcontext(), self._writing("the last one"):
            self._manager.close()

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """Raise a CheckpointWriteError that names the checkpoint for any error of Orbax, also from the background."""
        try:
            yield
        except Exception as error:
            whole = sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdecimal())
            raise CheckpointWriteError(
                f"a checkpoint in {self._folder} could not be written ({what}): {str(error).splitlines()[0]}. The "
                f"checkpoints of steps {whole} are whole: make room, and go on from there with --resume"
            ) from error

    def latest_step(self) -> int | None:
        """Return the step of the latest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, iterator_state: Any, progress: Progress, *, loss: float | None) -> None:
        """Save a checkpoint under the step of the state, unless it exists already.

        Args:
            state: The training state.
            iterator_state: What the training batches return from `get_state()`; it must be JSON-serializable.
            progress: Progress of the stage.
            loss: Validation loss at this step; None where it was not evaluated.

        Raises:
            CheckpointWriteError: This checkpoint, or the one before, could not be written.
        """
        step = int(state.step)
        if step == self.latest_step():
            return
        items = ocp.args.Composite(
            model=ocp.args.StandardSave({"params": state.params, "rest": state.rest}),
            training=ocp.args.StandardSave(_all_but_model(state)),
            host=ocp.args.JsonSave({"iterator": iterator_state, "progress": asdict(progress)}),
            about=ocp.args.JsonSave(self._about),
        )
        with self._writing(f"step {step}"):
            self._manager.save(step, args=items, metrics=None if loss is None else {"loss": loss})

    def restore(self, step: int, like: TrainState) -> tuple[TrainState, Any, Progress]:
        """Return (state, iterator state, progress) as saved; `like` gives shapes, dtypes and placement on devices."""
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
        """Return the progress saved at this step."""
        host = self._manager.restore(step, args=ocp.args.Composite(host=ocp.args.JsonRestore()))["host"]
        return Progress(**host["progress"])

    def restore_model(self, step: int, params: Any, rest: Any) -> tuple[Any, Any]:
        """Return (params, rest) as saved, without the state of the optimizer.

        Args:
            step: The step.
            params: Parameters with the shapes, dtypes and placement to restore.
            rest: Other variables, likewise.
        """
        like = _abstract({"params": params, "rest": rest})
        model = self._manager.restore(step, args=ocp.args.Composite(model=ocp.args.StandardRestore(like)))["model"]
        return model["params"], model["rest"]


class _LatestAndBest(PreservationPolicy):
    def __init__(self, keep: int) -> None:
        self.keep = keep

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        evaluated = [checkpoint for checkpoint in checkpoints if checkpoint.metrics is not None]
        best = min(
            evaluated, key=lambda checkpoint: checkpoint.metrics["loss"], default=None
        )  # the first of equal losses
        latest = checkpoints[-self.keep :]
        return [checkpoint is best or checkpoint in latest for checkpoint in checkpoints]


def _all_but_model(state: TrainState) -> dict[str, Any]:
    return {"stage": state.stage, "step": state.step, "opt_state": state.opt_state, "key": state.key}


def _abstract(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree)


def claim_folder(out_dir: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
    """Write config.json into the folder of a run; the first process does so, once all processes have looked.

    Args:
        out_dir: The folder.
        settings: Everything that decides the run.
        resume: Whether the folder may hold a run.

    Raises:
        FileExistsError: It holds a run, and `resume` is False.
        ValueError: It holds a run with other settings; the message names them.
    """
    path = out_dir / CONFIG
    if path.exists():
        if not resume:
            raise FileExistsError(f"{out_dir} holds a run: resume it, or name another folder")
        check_settings(out_dir, settings)
    wait_for_all("claim")
    if jax.process_index() == 0:
        out_dir.mkdir(parents=True, exist_ok=True)
        path.write_text(_text(settings), encoding="utf-8")
    wait_for_all("claimed")


def check_settings(out_dir: Path, settings: Mapping[str, Any], *, ignored: Sequence[str] = ()) -> None:
    """Check that the run in a folder has these settings.

    Args:
        out_dir: The folder.
        settings: The settings.
        ignored: Names of settings that may differ.

    Raises:
        FileNotFoundError: There is no run.
        ValueError: It has other settings; the message names them.
    """
    path = out_dir / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"no run in {out_dir}: it has no {CONFIG}")
    before, now = _settings(path.read_text(encoding="utf-8")), _settings(_text(settings))
    names = [name for name in {**before, **now} if name not in ignored]
    changed = [name for name in names if before.get(name, "missing") != now.get(name, "missing")]
    if changed:
        raise ValueError(
            f"{path} has other settings than this run: {', '.join(changed)}. Give the settings that it was begun with"
        )


def _text(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, indent=2) + "\n"


def _settings(text: str) -> dict[str, Any]:
    """Return every single value by its path, such as "stages.0.learning_rate"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(json.loads(text), is_leaf=lambda leaf: leaf is None)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def last_checkpoint(out_dir: Path, config: TrainConfig) -> tuple[int, int]:
    """Return (stage, step) of the last complete checkpoint of a run; the step is -1 if there is none."""
    for index, stage in reversed(list(enumerate(config.stages))):
        if stage_folder(out_dir, index, stage.name).exists():
            with Checkpoints(out_dir, index, stage.name, keep=config.keep) as checkpoints:
                step = checkpoints.latest_step()
            if step is not None:
                return index, step
    return 0, -1


def restore_start(out_dir: Path, config: TrainConfig, index: int, params: Any, rest: Any) -> tuple[Any, Any]:
    """Return (params, rest) that a stage starts from.

    They are the best or the last weights of the stage before; after the last stage, its best. They are read from disk
    even by the run that wrote them, so that a resumed run starts from the same bits.

    Args:
        out_dir: The folder of the run.
        config: The run.
        index: Number of the stage; the number of stages means after the last.
        params: Parameters with the shapes, dtypes and placement to restore.
        rest: Other variables, likewise.
    """
    choice = config.stages[index].start_from if index < len(config.stages) else "best"
    with Checkpoints(out_dir, index - 1, config.stages[index - 1].name, keep=config.keep) as checkpoints:
        step = checkpoints.latest_step()
        if step is None:
            raise FileNotFoundError(f"no checkpoint of stage {config.stages[index - 1].name!r} in {out_dir}")
        match choice:
            case "best":
                step = checkpoints.progress(step).best_step
            case "last":
                pass
            case _:
                assert_never(choice)
        return checkpoints.restore_model(step, params, rest)

"""The one training loop, which takes stages, loss and data as arguments."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import jax
from flax import nnx

from clipita_train.engine.checkpoint import Checkpoints, claim_folder, last_checkpoint, restore_start
from clipita_train.engine.config import StageConfig, TrainConfig
from clipita_train.engine.log import MetricsFile, StepLog
from clipita_train.engine.mesh import any_process, make_mesh, parameter_shardings, place, replicated, wait_for_all
from clipita_train.engine.optimizer import build_optimizer
from clipita_train.engine.software import software
from clipita_train.engine.stages import Progress, total_steps
from clipita_train.engine.state import TrainState, create_state, split_model
from clipita_train.engine.step import (
    Batch,
    LossFn,
    Metrics,
    make_eval_step,
    make_train_step,
    put_batch,
    take_ids,
    validation_means,
)
from clipita_train.engine.termination import TERMINATED, on_sigterm


class Batches(Protocol):
    """An iterator of batches: dicts of NumPy arrays, or of trees of them, with one row for each example.

    Arrays must be new in each batch, since the device may still be reading the last ones. "ids", if a batch has them,
    name its examples in errors and never reach the device. "mask" (B,) bool is False for rows of padding; validation
    batches must have it (see `step.pad_rows`). Training batches go on for ever, and have a `len()`, the batches of an
    epoch, if a stage counts epochs. Grain's iterators fit.
    """

    def __iter__(self) -> Iterator[dict[str, Any]]: ...
    def __next__(self) -> dict[str, Any]: ...
    def get_state(self) -> Any:
        """Return the position in the data, JSON-serializable."""
        ...

    def set_state(self, state: Any) -> None:
        """Go to the position that `get_state` returned."""
        ...


Split = Literal["train", "validation"]
MakeBatches = Callable[[StageConfig, Split], Batches]
Evaluate = Callable[[nnx.Module], Mapping[str, float]]
Model = TypeVar("Model", bound=nnx.Module)


def fit(
    model: Model,
    config: TrainConfig,
    loss_fn: LossFn,
    make_batches: MakeBatches,
    *,
    out_dir: str | Path,
    evaluate: Evaluate | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    show_progress: bool = True,
    tensorboard: bool = False,
) -> Model:
    """Train through all stages, and return the model with the best weights of the last one.

    Args:
        model: The model that the first stage starts from; it is not changed. Rules match the paths of its parameters.
        config: The stages and other settings; written to `out_dir`/config.json.
        loss_fn: (model, batch, key) to (scalar loss, {name: scalar}). It is compiled, and the same for all stages, but
            may look at which entries a batch has. It takes means over rows, without rows where "mask" is False. The
            PRNG key is for dropout and augmentation, and None in evaluation. The model comes in `train()` or `eval()`
            mode.
        make_batches: (stage, "train" or "validation") to batches. Validation batches are made anew for each evaluation;
            they must end, and should be the same each time.
        out_dir: Receives config.json, metrics.jsonl and checkpoints/<index>-<stage>/<step>, each with the settings and
            versions that made it. If there are several processes, all share one folder.
        evaluate: Computes further scores of the model for the metrics file. It must not keep the model, whose arrays
            the next step consumes.
        settings: What else decides the run, e.g. the rest of its recipe and a hash of its data. It is written to
            config.json too, and a resumed run must have the same.
        resume: Go on from the last checkpoint in `out_dir`, if there is one; on CPU the result is the same to the bit.
            Otherwise `out_dir` must hold no run.
        show_progress: Whether to show a progress bar.
        tensorboard: Also write the metrics for TensorBoard, to `out_dir`/tensorboard.

    Raises:
        NonFiniteLossError: Names the step and the examples; the last checkpoint is sound.
        CheckpointWriteError: A checkpoint could not be written, e.g. because the disk is full; earlier ones are sound.
        SystemExit: With status 143 after SIGTERM, once the state is saved.
        FileExistsError: `out_dir` holds a run, and `resume` is False.
        ValueError: The run in `out_dir` has other settings, a parameter has no rule, or batches do not fit.
    """
    out_dir = Path(out_dir)
    settings = {**asdict(config), **(settings or {})}
    claim_folder(out_dir, settings, resume=resume)
    mesh = make_mesh(config.mesh)
    graphdef, params, rest = split_model(model)
    params, rest = place((params, rest), (parameter_shardings(config.mesh, params, mesh), replicated(mesh)))
    first, step = last_checkpoint(out_dir, config)
    wait_for_all("looked for checkpoints")  # before the first process writes one
    board = out_dir / "tensorboard" if tensorboard else None
    metrics_file = MetricsFile(out_dir / "metrics.jsonl", keep_until=(first, step), board=board)
    with metrics_file as metrics, on_sigterm() as terminated:
        eval_step = make_eval_step(graphdef, loss_fn)  # the same for all stages, so that it is compiled once
        run = _Run(
            config=config,
            graphdef=graphdef,
            loss_fn=loss_fn,
            eval_step=eval_step,
            make_batches=make_batches,
            evaluate=evaluate,
            out_dir=out_dir,
            about={"settings": settings, "software": software()},
            mesh=mesh,
            metrics=metrics,
            terminated=terminated,
            show_progress=show_progress,
        )
        for index in range(first, len(config.stages)):
            if index > 0:
                params, rest = restore_start(out_dir, config, index, params, rest)
            if run.train_stage(index, params, rest):
                raise SystemExit(TERMINATED)
    return load_best(model, config, out_dir)


def load_best(model: Model, config: TrainConfig, out_dir: str | Path) -> Model:
    """Return a model built like `model`, with the best weights of the last stage of a run; `model` is not changed.

    If there are several processes, all must call it, and each gets a model of its own.

    Args:
        model: A model with the structure of the trained one.
        config: The run.
        out_dir: The folder of the run.
    """
    graphdef, params, rest = split_model(model)
    if jax.process_count() > 1:  # all processes read together, and can read only arrays that all of them hold
        params, rest = place((params, rest), replicated(make_mesh(config.mesh)))
    best = restore_start(Path(out_dir), config, len(config.stages), params, rest)
    if jax.process_count() > 1:
        best = jax.tree.map(lambda leaf: leaf.addressable_data(0), best)
    return nnx.merge(graphdef, *best)


@dataclass(frozen=True)
class _Run:
    """Everything that is the same in all stages of a run."""

    config: TrainConfig
    graphdef: Any
    loss_fn: LossFn
    eval_step: Callable[[TrainState, Batch], Metrics]
    make_batches: MakeBatches
    evaluate: Evaluate | None
    out_dir: Path
    about: Mapping[str, Any]  # saved beside every checkpoint
    mesh: jax.sharding.Mesh
    metrics: MetricsFile
    terminated: list[int]  # not empty once SIGTERM has come
    show_progress: bool

    def train_stage(self, index: int, params: Any, rest: Any) -> bool:
        """Train a stage from its last checkpoint, or from these weights, until it ends or SIGTERM comes.

        Returns:
            Whether SIGTERM has come.
        """
        config, stage = self.config, self.config.stages[index]
        batches = self.make_batches(stage, "train")
        last_step = total_steps(stage, batches)
        optimizer = build_optimizer(stage, params, total_steps=last_step)
        whole = replicated(self.mesh)
        state = create_state(params, rest, optimizer, stage=index, seed=config.seed, sharding=whole)
        train_step = make_train_step(self.graphdef, self.loss_fn, optimizer, like=state)
        progress, step = Progress(), 0

        with Checkpoints(self.out_dir, index, stage.name, keep=config.keep, about=self.about) as checkpoints:
            latest = checkpoints.latest_step()
            if latest is not None:
                step = latest
                state, position, progress = checkpoints.restore(step, state)
                batches.set_state(position)
            else:
                loss = self.validate(index, 0, state)
                progress = progress.after(0, loss, stage=stage, total_steps=last_step)
                checkpoints.save(state, batches.get_state(), progress, loss=loss)

            with StepLog(self.metrics, config, index, step, last_step, show_progress=self.show_progress) as log:
                while not (progress.finished or any_process(bool(self.terminated))):
                    batch, ids = take_ids(_next(batches, stage))
                    state, values = train_step(state, put_batch(batch, self.mesh))
                    step += 1
                    log.push(step, values, ids)
                    evaluates = step % stage.eval_every == 0 or step == last_step
                    if not evaluates and (config.save_every is None or step % config.save_every):
                        continue
                    log.flush()  # raises if the loss is not finite, before that is saved
                    loss = self.validate(index, step, state) if evaluates else None
                    if loss is not None:
                        progress = progress.after(step, loss, stage=stage, total_steps=last_step)
                    checkpoints.save(state, batches.get_state(), progress, loss=loss)
                log.flush()
            checkpoints.save(
                state, batches.get_state(), progress, loss=None
            )  # saves only if the run was terminated between checkpoints
        return any_process(bool(self.terminated))

    def validate(self, index: int, step: int, state: TrainState) -> float:
        """Write the validation loss and all other scores to the metrics file, and return the loss."""
        stage = self.config.stages[index]
        rows, means = validation_means(self.eval_step, state, self.make_batches(stage, "validation"), self.mesh)
        self.metrics.write(stage=index, step=step, split="validation", rows=rows, **means)
        if self.evaluate is not None:
            model = nnx.merge(self.graphdef, state.params, state.rest)
            model.eval()
            self.metrics.write(stage=index, step=step, split="evaluation", **self.evaluate(model))
        self.metrics.sync()
        return means["loss"]


def _next(batches: Batches, stage: StageConfig) -> dict[str, Any]:
    try:
        return next(batches)
    except StopIteration:
        raise ValueError(f"the training batches of stage {stage.name!r} ended before it did; let them repeat") from None

"""The one training loop: stages, loss and data are its arguments."""

import dataclasses
import json
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import jax
import numpy as np
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from tqdm import tqdm

from training.checkpoint import Checkpoints
from training.config import StageConfig, TrainConfig
from training.log import MetricsFile
from training.optimizer import build_optimizer
from training.stages import Progress, total_steps
from training.state import TrainState, create_state, split_model
from training.step import LossFn, make_eval_step, make_train_step, put_batch

TERMINATED = 128 + signal.SIGTERM  # exit status of a run that was told to leave, saved, and left
Split = Literal["train", "validation"]


class Batches(Protocol):
    """An iterator of batches: dicts of NumPy arrays (or trees of them), each with its rows on the leading axis.

    "ids", if a batch has it, names its examples in errors and never reaches the device; "mask" (B,) bool marks the rows
    that are no padding, and validation batches must have it (see `training.step.pad_rows`). Training batches go on for
    ever, with `len()` of one epoch if a stage counts epochs. Grain's iterators fit.
    """

    def __iter__(self) -> Iterator[dict[str, Any]]: ...
    def __next__(self) -> dict[str, Any]: ...
    def get_state(self) -> Any: ...  # JSON-serialisable
    def set_state(self, state: Any) -> None: ...


class NonFiniteLossError(FloatingPointError):
    """The loss or a gradient became infinite or NaN; the message names the step and the examples."""


def fit(
    model: nnx.Module,
    config: TrainConfig,
    loss_fn: LossFn,
    make_batches: Callable[[StageConfig, Split], Batches],
    *,
    out_dir: str | Path,
    evaluate: Callable[[nnx.Module], Mapping[str, float]] | None = None,
    resume: bool = False,
    show_progress: bool = True,
) -> nnx.Module:
    """Trains through all stages and returns the model with the best weights of the last one.

    Args:
        model: where the first stage starts; it is not changed. Its parameters' paths are what stage rules match.
        config: the stages and the rest; written to `out_dir`/config.json.
        loss_fn: (model, batch, key) to (scalar loss, {name: scalar}), compiled, the same for all stages: it can look at
            which entries a batch has. Means over rows, without the rows that "mask" marks False. The PRNG key is for
            dropout and augmentation, and None in evaluation. The model comes in `train()` or `eval()` mode.
        make_batches: (stage, "train" or "validation") to batches; validation ones are made anew for every evaluation,
            end, and should be the same each time.
        out_dir: receives config.json, metrics.jsonl and checkpoints/<index>-<stage>/<step>.
        evaluate: further scores of the model beside its validation loss, for the metrics file. It must not keep the
            model, whose arrays the next step consumes.
        resume: go on from the last checkpoint in `out_dir` if it has one; on CPU to the same bits. Otherwise `out_dir`
            must hold no run.

    Raises:
        NonFiniteLossError: with the ids of the batch; the last checkpoint is sound.
        SystemExit: with status 143 after SIGTERM, once the state is saved.
        FileExistsError, ValueError: `out_dir` holds a run and `resume` is False, or it is one of another config.
    """
    out_dir = Path(out_dir)
    _claim_folder(out_dir, config, resume=resume)
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    graphdef, params, rest = split_model(model)
    params, rest = jax.device_put((params, rest), NamedSharding(mesh, PartitionSpec()))

    first, step = _last_checkpoint(out_dir, config)
    with MetricsFile(out_dir / "metrics.jsonl", resumed_at=(first, -1 if step is None else step)) as metrics:
        for index in range(first, len(config.stages)):
            if index > 0:
                params, rest = _restore_start(out_dir, config, index, params, rest)
            run = _StageRun(index, config, graphdef, loss_fn, make_batches, evaluate, mesh, metrics, show_progress)
            run.train(out_dir, params, rest)
    params, rest = _restore_start(out_dir, config, len(config.stages), params, rest)
    return nnx.merge(graphdef, params, rest)


@dataclasses.dataclass
class _StageRun:
    index: int
    config: TrainConfig
    graphdef: Any
    loss_fn: LossFn
    make_batches: Callable[[StageConfig, Split], Batches]
    evaluate: Callable[[nnx.Module], Mapping[str, float]] | None
    mesh: jax.sharding.Mesh
    metrics: MetricsFile
    show_progress: bool

    def __post_init__(self) -> None:
        self.stage = self.config.stages[self.index]
        self.eval_step = make_eval_step(self.graphdef, self.loss_fn)

    def train(self, out_dir: Path, params: Any, rest: Any) -> None:
        """Runs the stage from its last checkpoint, or from these weights, to its end."""
        stage, config = self.stage, self.config
        batches = self.make_batches(stage, "train")
        last_step = total_steps(stage, batches)
        optimizer = build_optimizer(stage, params, total_steps=last_step)
        train_step = make_train_step(self.graphdef, self.loss_fn, optimizer)
        replicated = NamedSharding(self.mesh, PartitionSpec())
        state = create_state(params, rest, optimizer, stage=self.index, seed=config.seed, sharding=replicated)
        progress = Progress()
        with Checkpoints(out_dir, self.index, stage.name, keep=config.keep) as checkpoints, _sigterm() as terminated:
            step = checkpoints.latest_step()
            if step is not None:
                state, position, progress = checkpoints.restore(step, state)
                batches.set_state(position)
            else:
                step, loss = 0, self.validate(state, 0)
                progress = progress.after(0, loss, stage=stage, total_steps=last_step)
                self.save(checkpoints, state, batches, progress, loss)
            with self.progress_bar(step, last_step) as bar:
                waiting = None  # the step before, whose metrics are read while the device is busy with the next
                while not progress.finished:
                    batch = dict(_next(batches, stage))
                    ids = batch.pop("ids", None)
                    state, values = train_step(state, put_batch(batch, self.mesh))
                    self.report(waiting, bar)
                    step, waiting = step + 1, (step + 1, values, ids)
                    evaluates = step % stage.eval_every == 0 or step == last_step
                    saves = config.save_every is not None and step % config.save_every == 0
                    if not (evaluates or saves or terminated):
                        continue
                    self.report(waiting, bar)  # what is not finite raises here and is not saved
                    waiting, loss = None, None
                    if evaluates:
                        loss = self.validate(state, step)
                        progress = progress.after(step, loss, stage=stage, total_steps=last_step)
                    self.save(checkpoints, state, batches, progress, loss)
                    if terminated and not progress.finished:
                        raise SystemExit(TERMINATED)
        if terminated:
            raise SystemExit(TERMINATED)

    def report(self, waiting: tuple[int, dict[str, jax.Array], Any] | None, bar: tqdm) -> None:
        if waiting is None:
            return
        step, values, ids = waiting
        numbers = _numbers(values)
        if not numbers.pop("finite"):
            raise NonFiniteLossError(self.describe(step, numbers, ids))
        bar.update(self.stage.batch_size)
        if step % self.config.log_every == 0:
            bar.set_postfix(step=step, loss=f"{numbers['loss']:.4f}", refresh=False)
            self.metrics.write(stage=self.index, step=step, split="train", **numbers)

    def validate(self, state: TrainState, step: int) -> float:
        """Mean validation loss over all rows of the whole set, and every metric and score written to the file."""
        sums: dict[str, float] = {}
        rows = 0
        for batch in self.make_batches(self.stage, "validation"):
            batch = dict(batch)
            ids = batch.pop("ids", None)
            if "mask" not in batch:
                raise ValueError(f"validation batches need 'mask' (see pad_rows); this one has {', '.join(batch)}")
            values = _numbers(self.eval_step(state, put_batch(batch, self.mesh)))
            count = values.pop("rows")
            if not np.isfinite(values["loss"]):
                raise NonFiniteLossError(self.describe(step, values, ids, "validation "))
            sums = {name: sums.get(name, 0.0) + count * value for name, value in values.items()}
            rows += count
        if not rows:
            raise ValueError(f"make_batches(stage {self.stage.name!r}, 'validation') gave no rows")
        means = {name: total / rows for name, total in sums.items()}
        self.metrics.write(stage=self.index, step=step, split="validation", rows=rows, **means)
        if self.evaluate is not None:
            model = nnx.merge(self.graphdef, state.params, state.rest)
            model.eval()
            self.metrics.write(stage=self.index, step=step, split="evaluation", **self.evaluate(model))
        return means["loss"]

    def save(
        self, checkpoints: Checkpoints, state: TrainState, batches: Batches, progress: Progress, loss: float | None
    ) -> None:
        self.metrics.sync()
        checkpoints.save(state, batches.get_state(), progress, loss=loss)

    def describe(self, step: int, values: Mapping[str, float], ids: Any, split: str = "") -> str:
        numbers = ", ".join(f"{name}={value:g}" for name, value in values.items())
        names = "without 'ids'" if ids is None else f"with ids {np.asarray(ids).tolist()}"
        return f"stage {self.stage.name!r}, step {step}, {split}batch {names}: not finite ({numbers})"

    def progress_bar(self, step: int, last_step: int) -> tqdm:
        size = self.stage.batch_size
        return tqdm(
            total=last_step * size,
            initial=step * size,
            desc=self.stage.name,
            unit="ex",
            unit_scale=True,
            disable=None if self.show_progress else True,
        )


def _next(batches: Batches, stage: StageConfig) -> dict[str, Any]:
    try:
        return next(batches)
    except StopIteration:
        raise ValueError(f"the training batches of stage {stage.name!r} ended before it did; let them repeat") from None


def _numbers(metrics: Mapping[str, jax.Array]) -> dict[str, Any]:
    return {name: value.item() for name, value in jax.device_get(metrics).items()}


@contextmanager
def _sigterm() -> Iterator[list[int]]:
    """A list that becomes non-empty once SIGTERM has come; a second one kills as usual."""
    received: list[int] = []

    def receive(number: int, _: Any) -> None:
        received.append(number)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    before = signal.signal(signal.SIGTERM, receive)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)


def _claim_folder(out_dir: Path, config: TrainConfig, *, resume: bool) -> None:
    path = out_dir / "config.json"
    text = json.dumps(dataclasses.asdict(config), indent=2) + "\n"
    if path.exists():
        if not resume:
            raise FileExistsError(f"{out_dir} holds a run: resume it, or name another folder")
        before, now = json.loads(path.read_text(encoding="utf-8")), json.loads(text)
        changed = [name for name in now if before.get(name) != now[name]]
        if changed or before.keys() != now.keys():
            raise ValueError(f"{out_dir} holds a run with other settings: {', '.join(changed)}; see {path}")
    out_dir.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _last_checkpoint(out_dir: Path, config: TrainConfig) -> tuple[int, int | None]:
    """(index of the stage to go on with, step of its last checkpoint), (0, None) where there is none."""
    for index in reversed(range(len(config.stages))):
        with Checkpoints(out_dir, index, config.stages[index].name, keep=config.keep) as checkpoints:
            step = checkpoints.latest_step()
            if step is not None:
                return index, step
    return 0, None


def _restore_start(out_dir: Path, config: TrainConfig, index: int, params: Any, rest: Any) -> tuple[Any, Any]:
    """The weights that stage `index` starts from: the best or last of the stage before. After the last stage, its best.

    They are read from disk even in the run that wrote them, so that a resumed run starts from the same ones.
    """
    choice = config.stages[index].start_from if index < len(config.stages) else "best"
    with Checkpoints(out_dir, index - 1, config.stages[index - 1].name, keep=config.keep) as checkpoints:
        step = checkpoints.latest_step()
        if choice == "best":
            step = checkpoints.progress(step).best_step
        return checkpoints.restore_model(step, params, rest)

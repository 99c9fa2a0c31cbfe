"""The compiled functions of training: one update, and one evaluation of a batch."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from clipita_train.engine.optimizer import Optimizer
from clipita_train.engine.state import TrainState, split_model

Batch = Mapping[str, Any]  # names to arrays, or to trees of arrays
Metrics = dict[str, jax.Array]
LossFn = Callable[[nnx.Module, Batch, jax.Array | None], tuple[jax.Array, Metrics]]


class NonFiniteLossError(FloatingPointError):
    """The loss or a gradient became infinite or NaN."""

    def __init__(self, where: str, values: Mapping[str, float], ids: Any) -> None:
        numbers = ", ".join(f"{name}={value:g}" for name, value in values.items())
        examples = "no 'ids' in its batch" if ids is None else f"ids of its batch: {np.asarray(ids).tolist()}"
        super().__init__(f"{where}: not finite ({numbers}); {examples}")


def make_train_step(
    graphdef: Any, loss_fn: LossFn, optimizer: Optimizer, *, like: TrainState | None = None
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Return a compiled function that makes one update, and consumes the state it is given.

    Its metrics are those of `loss_fn`, and "loss", "grad_norm", "learning_rate" and "finite", which says whether loss
    and gradients were finite. If not, the returned state is spoilt and must not be saved.

    Args:
        graphdef: Graph definition of the model.
        loss_fn: The loss function, as for `clipita_train.engine.loop.fit`.
        optimizer: The optimizer of the stage.
        like: A state whose placement on devices the new state keeps; None leaves it to the compiler.
    """
    placement = None if like is None else jax.tree.map(lambda leaf: leaf.sharding, like)

    @partial(jax.jit, donate_argnums=0, out_shardings=(placement, None))
    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        def loss_of(params: Any) -> tuple[jax.Array, tuple[Metrics, Any]]:
            # Frozen leaves count as constants, so that no gradient of a locked tower is ever traced or computed.
            params = jax.tree.map(lambda p, t: p if t else jax.lax.stop_gradient(p), params, optimizer.trained)
            model = nnx.merge(graphdef, params, state.rest)
            model.train()
            loss, metrics = loss_fn(model, batch, state.step_key())
            return loss, (metrics, split_model(model)[2])

        (loss, (metrics, rest)), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        params, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        grad_norm = optax.tree.norm(gradients)
        metrics = {
            **metrics,
            "loss": loss,
            "grad_norm": grad_norm,
            "learning_rate": optimizer.learning_rate(state.step),
            "finite": jnp.isfinite(loss) & jnp.isfinite(grad_norm),
        }
        new_state = TrainState(
            stage=state.stage,
            step=state.step + 1,
            params=params,
            rest=rest,
            opt_state=opt_state,
            key=state.key,
        )
        return new_state, metrics

    return train_step


def make_eval_step(graphdef: Any, loss_fn: LossFn) -> Callable[[TrainState, Batch], Metrics]:
    """Return a compiled function that returns the mean loss and metrics of a batch, and "rows", the number of its rows.

    The batch must have "mask" (B,) bool, False for rows of padding, and `loss_fn` must leave those rows out.
    """

    @jax.jit
    def eval_step(state: TrainState, batch: Batch) -> Metrics:
        model = nnx.merge(graphdef, state.params, state.rest)
        model.eval()
        loss, metrics = loss_fn(model, batch, None)
        return {**metrics, "loss": loss, "rows": batch["mask"].sum()}

    return eval_step


def validation_means(
    eval_step: Callable[[TrainState, Batch], Metrics],
    state: TrainState,
    batches: Iterable[Batch],
    mesh: jax.sharding.Mesh,
) -> tuple[int, dict[str, float]]:
    """Return the number of rows in all batches, and the mean of each metric over these rows, without padding.

    Args:
        eval_step: From `make_eval_step`.
        state: The training state.
        batches: The validation batches.
        mesh: The devices.

    Raises:
        NonFiniteLossError: The loss of a batch is not finite; the message names the batch.
        ValueError: A batch has no "mask", or there are no rows at all.
    """
    sums: dict[str, float] = {}
    rows = 0
    for number, full_batch in enumerate(batches):
        batch, ids = take_ids(full_batch)
        if "mask" not in batch:
            raise ValueError(f"validation batches need 'mask' (see pad_rows); this one has {', '.join(batch)}")
        metrics = jax.device_get(eval_step(state, put_batch(batch, mesh)))
        count = metrics.pop("rows").item()
        values = {name: value.item() for name, value in metrics.items()}
        if not np.isfinite(values["loss"]):
            raise NonFiniteLossError(f"validation batch {number} after training step {int(state.step)}", values, ids)
        sums = {name: sums.get(name, 0.0) + count * value for name, value in values.items()}
        rows += count
    if not rows:
        raise ValueError("no validation batch has a row: there is no loss to choose a checkpoint by")
    return rows, {name: total / rows for name, total in sums.items()}


def take_ids(batch: Batch) -> tuple[dict[str, Any], Any]:
    """Return the batch without "ids", and its ids or None, since names stay on the host."""
    return {name: value for name, value in batch.items() if name != "ids"}, batch.get("ids")


def pad_rows(batch: Batch, size: int) -> dict[str, Any]:
    """Fill a batch up to `size` rows by repeating its last row, and add "mask" (size,) bool, True for the real rows.

    Then a last batch that is shorter needs no second compilation. All arrays must have one row for each example.

    Raises:
        ValueError: The arrays differ in length, are empty, or have more than `size` rows.
    """
    rows = {len(leaf) for leaf in jax.tree.leaves(batch)}
    if len(rows) != 1 or not 1 <= min(rows) <= size:
        raise ValueError(f"expected arrays of one length between 1 and {size}, got lengths {sorted(rows)}")
    (count,) = rows
    index = np.minimum(np.arange(size), count - 1)
    return {**jax.tree.map(lambda leaf: leaf[index], batch), "mask": np.arange(size) < count}


def put_batch(batch: Batch, mesh: jax.sharding.Mesh) -> Batch:
    """Put the arrays of a batch on the devices of the mesh, split along their leading axis over all of them.

    Each process gives its own rows.

    Raises:
        ValueError: A leading axis does not divide by the number of devices.
    """
    devices = len(mesh.local_devices)
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        if leaf.ndim == 0 or leaf.shape[0] % devices:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(f"batch entry {name!r} has shape {leaf.shape}: pad its rows to a multiple of {devices}")
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), batch)

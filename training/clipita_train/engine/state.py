"""The training state: everything that changes from one step to the next, as one pytree."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from clipita_train.engine.mesh import place, shardings_like
from clipita_train.engine.optimizer import Optimizer


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """The training state, which is saved and restored whole; the graph definition of the model never changes.

    Attributes:
        stage: () int32, index of the stage.
        step: () int32, updates made in this stage.
        params: The model's `nnx.Param` leaves as plain arrays, both trained and frozen ones.
        rest: All other variables (batch statistics, random streams) as plain arrays.
        opt_state: The optimizer's state, for trained leaves only.
        key: () PRNG key of the run, which does not change. The key of a step is folded from it, the stage and the step,
            so that a resumed run draws what an uninterrupted one would have drawn.
    """

    stage: jax.Array
    step: jax.Array
    params: Any
    rest: Any
    opt_state: Any
    key: jax.Array

    def step_key(self) -> jax.Array:
        """Return the PRNG key for the next step."""
        return jax.random.fold_in(jax.random.fold_in(self.key, self.stage), self.step)


def split_model(model: nnx.Module) -> tuple[Any, Any, Any]:
    """Return (graph definition, params, rest), the latter two as trees of arrays that still belong to the model."""
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    return graphdef, nnx.as_pure(params), nnx.as_pure(rest)


def create_state(
    params: Any, rest: Any, optimizer: Optimizer, *, stage: int, seed: int, sharding: jax.sharding.Sharding
) -> TrainState:
    """Return the state before the first step of a stage, with copies of the arrays.

    Copies are needed since a train step consumes its state. Parameters stay on their devices, and their optimizer state
    is placed with them; everything else goes to `sharding`.
    """
    state = TrainState(
        stage=jnp.int32(stage),
        step=jnp.int32(0),
        params=params,
        rest=rest,
        opt_state=optimizer.transform.init(params),
        key=jax.random.key(seed),
    )
    return jax.tree.map(jnp.copy, place(state, shardings_like(params, state, otherwise=sharding)))

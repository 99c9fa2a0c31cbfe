"""Everything that changes from one training step to the next, as one pytree."""

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
    """Saved whole and restored whole; the graph definition of the model is beside it, as it never changes.

    Attributes:
        stage: () int32, index of the stage.
        step: () int32, updates made in this stage.
        params: the model's `nnx.Param` leaves, as plain arrays, trained and frozen alike.
        rest: all its other variables (batch statistics, random streams), as plain arrays.
        opt_state: the optimizer's, for trained leaves only.
        key: () PRNG key of the run. It stays as it is: the key of a step is folded from it, stage and step, so that a
            resumed run draws what an uninterrupted one would have drawn.
    """

    stage: jax.Array
    step: jax.Array
    params: Any
    rest: Any
    opt_state: Any
    key: jax.Array

    def step_key(self) -> jax.Array:
        """The PRNG key for the next step."""
        return jax.random.fold_in(jax.random.fold_in(self.key, self.stage), self.step)


def split_model(model: nnx.Module) -> tuple[Any, Any, Any]:
    """(graph definition, params, rest), the latter two as trees of plain arrays that still belong to the model."""
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    return graphdef, nnx.as_pure(params), nnx.as_pure(rest)


def create_state(
    params: Any, rest: Any, optimizer: Optimizer, *, stage: int, seed: int, sharding: jax.sharding.Sharding
) -> TrainState:
    """The state before the first step of a stage, on copies of the arrays: a train step consumes its input state.

    Parameters stay where they are, and what the optimizer holds of them goes with them; all else goes to `sharding`.
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

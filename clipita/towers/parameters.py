"""Convert the parameters of a Flax module to a flat table of named arrays, as in `weights.safetensors`, and back.

Names are the module's attributes joined by dots ("blocks.3.expand.kernel"). Arrays are laid out as ONNX needs them:
convolution kernels (outputs, inputs, k, k), which Flax keeps as (k, k, inputs, outputs); all others are the same.
"""

# JAX and Flax leave parts of their interfaces without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from clipita.errors import CheckpointError
from clipita.system.arrays import Array


def parameter_table(module: nnx.Module) -> dict[str, Array]:
    """Copy every parameter and fixed statistic of `module` to the host."""
    table: dict[str, Array] = {}
    for name, variable in _variables(module).items():
        array = np.asarray(variable[...])
        table[name] = np.ascontiguousarray(array.transpose(3, 2, 0, 1)) if array.ndim == 4 else array
    return table


def set_parameters(module: nnx.Module, table: Mapping[str, Array]) -> None:
    """Set the parameters of `module` to those of a table, cast to the module's dtypes.

    Args:
        module: The module. If it comes from `nnx.eval_shape`, initial weights are never computed.
        table: As from `parameter_table`.

    Raises:
        CheckpointError: A name is missing or left over, or a shape differs.
    """
    variables = _variables(module)
    check_table(table, {name: _ours(variable.get_value().shape) for name, variable in variables.items()})
    for name, variable in variables.items():
        array, expected = table[name], variable.get_value()
        if array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        variable.set_value(jnp.asarray(array, expected.dtype))


def check_table(table: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compare the names and the shapes of a table with those of a model.

    Raises:
        CheckpointError: A name is missing or left over, or a shape differs.
    """
    if shapes.keys() != table.keys():
        raise CheckpointError(
            f"the weights do not fit the model: missing {_some(shapes.keys() - table.keys())}, "
            f"unknown {_some(table.keys() - shapes.keys())}"
        )
    for name, expected in shapes.items():
        if table[name].shape != expected:
            raise CheckpointError(f"the weight '{name}' has shape {table[name].shape}, expected {expected}")


def _ours(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the table's shape for a shape of Flax."""
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape


def _variables(module: nnx.Module) -> dict[str, nnx.Variable[Any]]:
    state = nnx.state(module, (nnx.Param, nnx.BatchStat))
    return {".".join(str(part) for part in path): variable for path, variable in nnx.to_flat_state(state)}


def _some(names: set[str]) -> str:
    listed = sorted(names)
    return str(listed) if len(listed) <= 5 else f"{listed[:5]} and {len(listed) - 5} more"

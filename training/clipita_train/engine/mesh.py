"""Arrange the devices, and decide which rows of a batch and which parts of parameters each of them holds."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from clipita_train.engine.config import MeshConfig
from clipita_train.engine.rules import match_rules, parameter_paths


def join_processes(coordinator: str, processes: int, index: int) -> None:
    """Make this process one of several that train together. Call it before anything else is done with JAX.

    Args:
        coordinator: "host:port" of the first process, the same for all.
        processes: How many processes there are.
        index: Number of this process, from 0. The first one writes what only one may write.
    """
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # has no effect on accelerators
    jax.distributed.initialize(coordinator, processes, index)


def wait_for_all(place: str) -> None:
    """Wait until every process has reached this place; return at once if there is only one."""
    multihost_utils.sync_global_devices(place)


def any_process(holds: bool) -> bool:
    """Return whether `holds` is True in any process; all processes must call this."""
    if jax.process_count() == 1:
        return holds
    return bool(multihost_utils.process_allgather(jax.numpy.asarray(holds)).any())


class OwnRows:
    """Takes this process's rows from batches that are the same in all processes, for data that each can read whole.

    Args:
        batches: Batches as `clipita_train.engine.loop.fit` takes them.
    """

    def __init__(self, batches: Any) -> None:
        self._batches = batches

    def __iter__(self) -> "OwnRows":
        return self

    def __next__(self) -> dict[str, Any]:
        return jax.tree.map(self._part, next(self._batches))

    def __len__(self) -> int:
        return len(self._batches)

    def get_state(self) -> Any:
        """Return the position in the data."""
        return self._batches.get_state()

    def set_state(self, state: Any) -> None:
        """Go to a position in the data."""
        self._batches.set_state(state)

    @staticmethod
    def _part(leaf: Any) -> Any:
        size, rest = divmod(len(leaf), jax.process_count())
        if rest:
            raise ValueError(f"a batch entry of shape {leaf.shape} does not divide by {jax.process_count()} processes")
        return leaf[jax.process_index() * size :][:size]


def make_mesh(config: MeshConfig) -> Mesh:
    """Arrange all devices of all processes in a mesh with the axes ("data", "fsdp").

    The batch is split over both axes, parameters over "fsdp" alone, so that devices along "data" hold the same parts of
    them. Axes are Auto: from the placement of parameters and rows, the compiler works out what devices must exchange.

    Raises:
        ValueError: The number of devices does not divide by `config.fsdp`.
    """
    devices = jax.device_count()
    if devices % config.fsdp:
        raise ValueError(f"mesh.fsdp={config.fsdp} does not divide the {devices} devices")
    return jax.make_mesh((devices // config.fsdp, config.fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding that puts the whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def place(tree: Any, shardings: Any) -> Any:
    """Put arrays, the same in every process, on the devices of a mesh, also on those of other processes.

    Args:
        tree: Arrays and PRNG keys. JAX itself can put keys only on devices of its own process.
        shardings: One sharding for all, or a tree of them like `tree`.
    """
    is_key = jax.tree.map(lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key), tree)
    numbers = jax.tree.map(lambda leaf, key: jax.random.key_data(leaf) if key else leaf, tree, is_key)
    placed = jax.device_put(numbers, shardings)
    return jax.tree.map(
        lambda leaf, key, old: jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(old)) if key else leaf,
        placed,
        is_key,
        tree,
    )


def parameter_shardings(config: MeshConfig, params: Any, mesh: Mesh) -> Any:
    """Return the sharding of each parameter, as a tree like `params`.

    Raises:
        ValueError: A parameter matches no rule or several, a rule matches none, or an axis to split does not exist or
            does not divide by `config.fsdp`. The message names the parameters.
    """
    shardings, problems = [], []
    for (path, rule), leaf in zip(match_rules(config.parameters, params), jax.tree.leaves(params), strict=True):
        axis = rule.axis
        if axis is None:
            shardings.append(replicated(mesh))
        elif not -leaf.ndim <= axis < leaf.ndim or leaf.shape[axis] % config.fsdp:
            problems.append(f"{path} {leaf.shape}: rule {rule.pattern!r} splits axis {axis}")
        else:
            spec = [None] * leaf.ndim
            spec[axis] = "fsdp"
            shardings.append(NamedSharding(mesh, PartitionSpec(*spec)))
    if problems:
        raise ValueError(f"these axes do not divide into {config.fsdp} parts:\n  " + "\n  ".join(problems))
    return jax.tree.unflatten(jax.tree.structure(params), shardings)


def shardings_like(params: Any, tree: Any, *, otherwise: jax.sharding.Sharding) -> Any:
    """Return the sharding of each leaf of an optimizer's state.

    A leaf is placed with the parameter whose path its own path ends in, if the shapes are equal; other leaves get
    `otherwise`.

    Args:
        params: The parameters, on their devices.
        tree: The state, or any tree that contains it.
        otherwise: The sharding of leaves that belong to no parameter.
    """
    placed = {
        path: (leaf.shape, leaf.sharding)
        for path, leaf in zip(parameter_paths(params), jax.tree.leaves(params), strict=True)
    }

    def sharding_of(path: str, leaf: jax.Array) -> jax.sharding.Sharding:
        parts = path.split("/")
        for start in range(len(parts)):
            shape, sharding = placed.get("/".join(parts[start:]), (None, None))
            if shape == leaf.shape and sharding is not None:
                return sharding
        return otherwise

    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, list(map(sharding_of, parameter_paths(tree), leaves)))

"""Which devices there are, and what each of them holds: rows of the batch, and parameters whole or in parts."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from clipita_train.engine.config import MeshConfig
from clipita_train.engine.rules import match_rules, parameter_paths


def join_processes(coordinator: str, processes: int, index: int) -> None:
    """Makes this process one of several that train together; before anything else is done with JAX.

    Args:
        coordinator: "host:port" of the first process, the same for all.
        processes: how many there are.
        index: which of them this is; 0 is the first, which writes what only one may write.
    """
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # of no effect where there are accelerators
    jax.distributed.initialize(coordinator, processes, index)


def wait_for_all(place: str) -> None:
    """Returns once every process has come to this place; at once where there is one."""
    multihost_utils.sync_global_devices(place)


def any_process(holds: bool) -> bool:
    """Whether it holds in any of the processes; all have to ask."""
    if jax.process_count() == 1:
        return holds
    return bool(multihost_utils.process_allgather(jax.numpy.asarray(holds)).any())


class OwnRows:
    """Of batches that are the same in every process, the rows of this one; for data that each of them can read whole.

    Args:
        batches: as `clipita_train.engine.loop.fit` takes them.
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
        return self._batches.get_state()

    def set_state(self, state: Any) -> None:
        self._batches.set_state(state)

    @staticmethod
    def _part(leaf: Any) -> Any:
        size, rest = divmod(len(leaf), jax.process_count())
        if rest:
            raise ValueError(f"a batch entry of shape {leaf.shape} does not divide by {jax.process_count()} processes")
        return leaf[jax.process_index() * size :][:size]


def make_mesh(config: MeshConfig) -> Mesh:
    """All devices of all processes, as ('data', 'fsdp').

    The batch is split over both axes, parameters over 'fsdp' alone: devices along 'data' hold the same parts of them.
    Axes are Auto: the compiler works out what to communicate from where parameters and rows are.
    """
    devices = jax.device_count()
    if devices % config.fsdp:
        raise ValueError(f"mesh.fsdp={config.fsdp} does not divide the {devices} devices")
    return jax.make_mesh((devices // config.fsdp, config.fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def place(tree: Any, shardings: Any) -> Any:
    """The arrays, the same in every process, on the devices of the mesh, those of other processes among them.

    Args:
        tree: arrays, and PRNG keys, which JAX itself puts on devices of its own process only.
        shardings: one for all, or a tree of them like `tree`.
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
    """Where each parameter goes, as a tree like `params`.

    Raises:
        ValueError: a parameter matches no rule or several, a rule matches none, or an axis to split is not there or
            does not divide by `config.fsdp`. Parameters are named.
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
    """Where each leaf of an optimizer's state goes: with its parameter where path and shape end as that one's do."""
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

"""Rename the leaves of a foreign checkpoint to our names; every leaf is used, known to be harmless, or an error."""

import math
from collections.abc import Iterable, Mapping

import numpy as np

from clipita.errors import CheckpointError
from clipita.system.arrays import Array
from clipita.towers.shapes import Shapes

Names = dict[str, str]  # a leaf's name -> ours; "a+b+c.kernel" cuts it into equal parts, in this order


_MAX_LAYERS = 1000  # names are made for all layers before a weight is looked at


def linear(names: Mapping[str, str]) -> Names:
    """Return the names of the leaves of `torch.nn.Linear` modules."""
    return _leaves(names, {"weight": "kernel", "bias": "bias"})


def norm(names: Mapping[str, str]) -> Names:
    """Return the names of the leaves of `torch.nn.LayerNorm` modules."""
    return _leaves(names, {"weight": "scale", "bias": "bias"})


def prefixed(theirs: str, ours: str, names: Mapping[str, str]) -> Names:
    """Return the same names with a prefix on either side."""
    return {theirs + name: ours + our_name for name, our_name in names.items()}


def repeated(theirs: str, layers: int, names: Mapping[str, str]) -> Names:
    """Return the names of all layers; `theirs` is their prefix, with "{}" for the layer's number."""
    if layers > _MAX_LAYERS:
        raise CheckpointError(f"the configuration says that a tower has {layers} layers; the deepest have a hundred.")
    together: Names = {}
    for index in range(layers):
        together |= prefixed(theirs.format(index), f"layers.{index}.", names)
    return together


def torch_names(leaves: Mapping[str, Array]) -> dict[str, Array]:
    """Rename the leaves of a Flax model ("a/b/kernel") as its PyTorch counterpart has them ("a.b.weight")."""
    renamed: dict[str, Array] = {}
    for path, values in leaves.items():
        *modules, leaf = path.split("/")
        if leaf == "kernel":
            values = values.T if values.ndim == 2 else values.transpose(3, 2, 0, 1)
        if leaf in ("kernel", "scale", "embedding"):
            leaf = "weight"
        renamed[".".join((*modules, leaf))] = values
    return renamed


def table_of(
    leaves: Mapping[str, Array], names: Names, shapes: Shapes, *, harmless: Iterable[str] = ()
) -> dict[str, Array]:
    """Return all weights of a dual encoder under our names, in our layout.

    Args:
        leaves: The leaves of the checkpoint, without those that its layout has read itself.
        names: Their names -> ours.
        shapes: The weights that must be there, by our names.
        harmless: Leaves that may be there and hold nothing that was learned.

    Returns:
        Views of the leaves, of their stored dtype.

    Raises:
        CheckpointError: A leaf is missing, unknown, of the wrong shape, or not of floating point.
    """
    if missing := sorted(names.keys() - leaves.keys()):
        raise CheckpointError(
            f"the checkpoint lacks {_some(missing)}. It is not complete, or its config.json is of another model."
        )
    if unknown := sorted(leaves.keys() - names.keys() - set(harmless)):
        raise CheckpointError(
            f"the checkpoint has weights that its architecture does not use: {_some(unknown)}. "
            "Its config.json may be of another model; if not, clipita does not know this architecture."
        )
    table: dict[str, Array] = {}
    for theirs, ours in names.items():
        values = leaves[theirs]
        if values.dtype.name not in ("float16", "bfloat16", "float32", "float64"):
            raise CheckpointError(f"the weight {theirs!r} holds {values.dtype}, expected floating-point numbers.")
        module, _, leaf = ours.rpartition(".")
        parent, _, together = module.rpartition(".")
        parts = together.split("+")
        if values.ndim and values.shape[0] % len(parts):
            raise CheckpointError(f"the weight {theirs!r} of shape {values.shape} is not {len(parts)} equal parts.")
        for name, part in zip(parts, np.split(values, len(parts)) if len(parts) > 1 else [values], strict=True):
            key = ".".join(filter(None, (parent, name, leaf)))
            part = _our_layout(leaf, part)
            if part.shape != shapes[key]:
                raise CheckpointError(
                    f"the weight {theirs!r} has shape {values.shape}; as {key!r} it would have to be {shapes[key]}, by "
                    "what the configuration says of the model. One of the two files is of another model."
                )
            table[key] = part
    if absent := sorted(shapes.keys() - table.keys()):
        raise CheckpointError(f"no leaf of this layout gives the weights {_some(absent)}.")
    return table


def scalar(leaves: dict[str, Array], name: str) -> float:
    """Remove from the leaves one that is a single number, and return it.

    Raises:
        CheckpointError: The leaf is missing, or is not one finite number.
    """
    if name not in leaves:
        raise CheckpointError(f"the checkpoint lacks {name!r}, the scale of its logits. It is not complete.")
    values = leaves.pop(name)
    if values.size != 1 or not np.isfinite(value := float(values.reshape(()))):
        raise CheckpointError(f"{name!r} must be one finite number, but it is {values.ravel()[:3]} of {values.shape}.")
    return value


def exp_scale(leaf: float) -> float:
    """Return the multiplier of cosines from its logarithm.

    Raises:
        CheckpointError: The multiplier is larger than that of any model.
    """
    if leaf > 20:  # e^20 is 5e8; CLIP stops at ln(100)
        raise CheckpointError(
            f"'logit_scale' is {leaf}, which would multiply cosines by e^{leaf}. The file is damaged."
        )
    return math.exp(leaf)


def _leaves(names: Mapping[str, str], kinds: Mapping[str, str]) -> Names:
    return {f"{theirs}.{a}": f"{ours}.{b}" for theirs, ours in names.items() for a, b in kinds.items()}


def _our_layout(leaf: str, values: Array) -> Array:
    if leaf == "kernel" and values.ndim == 2:
        return values.T  # PyTorch has the outputs first
    return values.reshape(-1, values.shape[-1]) if leaf == "embedding" else values


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")

"""Train the weights that clipita serves: start from pretrained towers, train in stages, and export a bundle."""

from importlib.util import find_spec

_MISSING = [name for name in ("flax", "jax", "optax", "orbax") if find_spec(name) is None]
if _MISSING:
    raise ModuleNotFoundError(
        f"training needs its extra: pip install 'clipita[train]' (not found: {', '.join(_MISSING)})", name=_MISSING[0]
    )

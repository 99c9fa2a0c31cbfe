"""Augmentation of photographs on the device; what one becomes depends on its id and the step, not on the batch.

The host decodes and resizes, antialiased, with `clipita.images.pixels`, as for evaluation. Here: colours;
then crop, flip, affine and perspective as one map with one interpolation; then autocontrast and equalisation.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from clipita_train.augment import color as colour
from clipita_train.augment.homography import affine, flip, perspective, warp
from clipita_train.augment.presets import Augmentation


class Draw(NamedTuple):
    """What chance decides for one image; each from a key of its own, so that one setting does not move another."""

    brightness: jax.Array
    contrast: jax.Array
    saturation: jax.Array
    hue: jax.Array
    corner: jax.Array  # (2,) int32, x and y
    flipped: jax.Array
    angle: jax.Array
    shift: jax.Array  # (2,)
    scale: jax.Array
    shear: jax.Array  # (2,)
    corners: jax.Array  # (4, 2)
    has_perspective: jax.Array
    has_autocontrast: jax.Array
    has_equalize: jax.Array


def draw(key: jax.Array, config: Augmentation, shape: tuple[int, int], size: int) -> Draw:
    """For an image of that shape (height, width), of which a square of that size is wanted."""
    keys = Draw(*jax.random.split(key, len(Draw._fields)))

    def between(key: jax.Array, reach: float, shape: tuple[int, ...] = (), middle: float = 0.0) -> jax.Array:
        return jax.random.uniform(key, shape, minval=middle - reach, maxval=middle + reach)

    height, width = shape
    spare = jnp.array([width - size, height - size])
    padding = round(config.crop_padding * size)
    first, last = jnp.minimum(spare, 0) - padding, jnp.maximum(spare, 0) + padding
    corner = jax.random.randint(keys.corner, (2,), first, last + 1) if config.crop else spare // 2
    degree = jnp.pi / 180
    half = (size - 1) / 2
    square = jnp.array([[-half, -half], [half, -half], [half, half], [-half, half]])
    inwards = jax.random.uniform(keys.corners, (4, 2)) * config.perspective
    return Draw(
        brightness=between(keys.brightness, config.brightness, middle=1),
        contrast=between(keys.contrast, config.contrast, middle=1),
        saturation=between(keys.saturation, config.saturation, middle=1),
        hue=between(keys.hue, config.hue),
        corner=corner,
        flipped=jax.random.bernoulli(keys.flipped, config.flip),
        angle=between(keys.angle, config.rotation * degree),
        shift=between(keys.shift, config.translation * size, (2,)),
        scale=jax.random.uniform(keys.scale, minval=config.scale[0], maxval=config.scale[1]),
        shear=between(keys.shear, config.shear * degree, (2,)),
        corners=square * (1 - inwards),
        has_perspective=jax.random.bernoulli(keys.has_perspective, config.perspective_probability),
        has_autocontrast=jax.random.bernoulli(keys.has_autocontrast, config.autocontrast),
        has_equalize=jax.random.bernoulli(keys.has_equalize, config.equalize),
    )


def sample_keys(key: jax.Array, ids: jax.Array, step: int | jax.Array) -> jax.Array:
    """A key (B,) for each sample id (B,) at a step, or each at its own (B,), whatever else is in the batch."""
    steps = jnp.broadcast_to(step, ids.shape)
    return jax.vmap(lambda id, step: jax.random.fold_in(jax.random.fold_in(key, id), step))(ids, steps)


def augment(
    pixels: jax.Array,
    ids: jax.Array,
    step: int | jax.Array,
    *,
    config: Augmentation,
    size: int,
    seed: int | jax.Array = 0,
    may_flip: jax.Array | None = None,
) -> jax.Array:
    """Augmented pixels (B, size, size, 3) uint8, which `DualEncoder.image_features` takes.

    Args:
        pixels: (B, H, W, 3) uint8, of any height and width: the more they show beyond `size`, the more a crop and the
            corners of a rotated image have to show.
        ids: (B,) integers, one for each sample of the whole data set.
        step: or epoch, or for each sample its own (B,): an id gets another augmentation at every one.
        config: what to do.
        size: side of the result.
        seed: of the run.
        may_flip: (B,) bool, False where the caption says left or right
            (`clipita_train.data.captions.sides.names_a_side`); None is all True.

    Raises:
        TypeError: pixels are not uint8.
        ValueError: shapes that do not fit.
    """
    if pixels.dtype != jnp.uint8:
        raise TypeError(f"pixels must be uint8, as clipita.images.pixels gives them, not {pixels.dtype}")
    if pixels.ndim != 4 or pixels.shape[3] != 3 or ids.shape != pixels.shape[:1]:
        raise ValueError(f"expected pixels (B, H, W, 3) and ids (B,), got {pixels.shape} and {ids.shape}")
    if may_flip is None:
        may_flip = jnp.ones(ids.shape, bool)
    drawn = _draws(seed, ids, step, config, pixels.shape[1:3], size)
    # Not one compiled function but three: in one, XLA computes colours and warp again for everything that reads them,
    # which took 5.3 ms of CPU an image with "as_coded" at 224 pixels, and so takes 3.5.
    if config.is_coloured:
        pixels = _recoloured(pixels, drawn, config)
    pixels = _warped(pixels, drawn, may_flip, config, size)
    return _levelled(pixels, drawn, config) if config.autocontrast or config.equalize else pixels


@partial(jax.jit, static_argnums=(3, 4, 5))
def _draws(
    seed: int | jax.Array,
    ids: jax.Array,
    step: int | jax.Array,
    config: Augmentation,
    shape: tuple[int, int],
    size: int,
) -> Draw:
    return jax.vmap(lambda key: draw(key, config, shape, size))(sample_keys(jax.random.key(seed), ids, step))


@partial(jax.jit, static_argnums=2)
@partial(jax.vmap, in_axes=(0, 0, None))
def _recoloured(image: jax.Array, drawn: Draw, config: Augmentation) -> jax.Array:
    """uint8 -> float32, so that nothing is rounded before the interpolation."""
    image = image.astype(jnp.float32)
    adjustments: list[tuple[float, Callable[[jax.Array, jax.Array], jax.Array], jax.Array]] = [
        (config.brightness, colour.brightness, drawn.brightness),
        (config.contrast, colour.contrast, drawn.contrast),
        (config.saturation, colour.saturation, drawn.saturation),
        (config.hue, colour.turn_hue, drawn.hue),
    ]
    for reach, adjust, amount in adjustments:
        image = adjust(image, amount) if reach else image
    return image


@partial(jax.jit, static_argnums=(3, 4))
@partial(jax.vmap, in_axes=(0, 0, 0, None, None))
def _warped(image: jax.Array, drawn: Draw, may_flip: jax.Array, config: Augmentation, size: int) -> jax.Array:
    warped = warp(image, _matrix(drawn, config, size, may_flip), drawn.corner, size, config.fill)
    return jnp.round(warped).astype(jnp.uint8)


@partial(jax.jit, static_argnums=2)
@partial(jax.vmap, in_axes=(0, 0, None))
def _levelled(image: jax.Array, drawn: Draw, config: Augmentation) -> jax.Array:
    levels = image.astype(jnp.float32)
    if config.autocontrast:
        levels = jnp.where(drawn.has_autocontrast, jnp.round(colour.autocontrast(levels)), levels)
    if config.equalize:
        levels = jnp.where(drawn.has_equalize, colour.equalize(levels), levels)
    return levels.astype(jnp.uint8)


def _matrix(drawn: Draw, config: Augmentation, size: int, may_flip: jax.Array) -> jax.Array:
    """(3, 3), from a point of the result to one of the cropped square: perspective undone first, then affine, flip."""
    matrix = flip(drawn.flipped & may_flip)
    if config.is_affine:
        moved = affine(drawn.angle, drawn.shift, drawn.scale, drawn.shear)
        matrix = jnp.matmul(matrix, moved, precision="highest")
    if config.is_perspective:
        seen = jnp.matmul(matrix, perspective(drawn.corners, size), precision="highest")
        matrix = jnp.where(drawn.has_perspective, seen, matrix)
    return matrix

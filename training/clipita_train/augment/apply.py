"""Augment photographs on the device; the result depends on a photograph's id and the step, not on its batch.

The host decodes and resizes photographs with `clipita.images.pixels`, antialiased, as for evaluation. The device
changes colors first. Then it crops, flips, rotates and tilts by a single map with one interpolation, and last it
stretches contrast and equalizes.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from clipita_train.augment import color
from clipita_train.augment.homography import affine, flip, perspective, warp
from clipita_train.augment.presets import Augmentation


class Draw(NamedTuple):
    """The random choices for one image.

    Each comes from a key of its own, so that changing one setting does not change the others.
    """

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
    """Draw the random choices for one image.

    Args:
        key: PRNG key of the image.
        config: How far each change goes.
        shape: Height and width of the image.
        size: Side of the square that is cropped.
    """
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
    """Derive a PRNG key for each sample of a batch from its id and the step alone.

    Args:
        key: Key of the run.
        ids: (B,) integers, one for each sample of the whole data set.
        step: One step for all samples, or (B,) steps.

    Returns:
        (B,) keys.
    """
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
    """Return augmented pixels (B, size, size, 3) uint8, the input of `DualEncoder.image_features`.

    Args:
        pixels: (B, H, W, 3) uint8 of any height and width. Pixels beyond `size` give crops, and the corners of rotated
            images, something to show.
        ids: (B,) integers, one for each sample of the whole data set.
        step: A step or epoch, for all samples or (B,). A sample is augmented differently at each.
        config: How far each change goes.
        size: Side of the result.
        seed: Seed of the run.
        may_flip: (B,) bool, False where the caption says left or right (see
            `clipita_train.data.captions.sides.names_a_side`); None: all may be flipped.

    Raises:
        TypeError: The pixels are not uint8.
        ValueError: The shapes do not fit.
    """
    if pixels.dtype != jnp.uint8:
        raise TypeError(f"pixels must be uint8, as clipita.images.pixels gives them, not {pixels.dtype}")
    if pixels.ndim != 4 or pixels.shape[3] != 3 or ids.shape != pixels.shape[:1]:
        raise ValueError(f"expected pixels (B, H, W, 3) and ids (B,), got {pixels.shape} and {ids.shape}")
    if may_flip is None:
        may_flip = jnp.ones(ids.shape, bool)
    drawn = _draws(seed, ids, step, config, pixels.shape[1:3], size)
    # Three compiled functions instead of one: in one function XLA computes colors and warp once for each use, which
    # took 5.3 ms of CPU an image with "as_coded" at 224 pixels; three functions take 3.5 ms.
    if config.is_colored:
        pixels = _recolored(pixels, drawn, config)
    pixels = _warped(pixels, drawn, may_flip, config, size)
    return _leveled(pixels, drawn, config) if config.autocontrast or config.equalize else pixels


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
def _recolored(image: jax.Array, drawn: Draw, config: Augmentation) -> jax.Array:
    """Change the colors, from uint8 to float32, so that nothing is rounded before the interpolation."""
    image = image.astype(jnp.float32)
    adjustments: list[tuple[float, Callable[[jax.Array, jax.Array], jax.Array], jax.Array]] = [
        (config.brightness, color.brightness, drawn.brightness),
        (config.contrast, color.contrast, drawn.contrast),
        (config.saturation, color.saturation, drawn.saturation),
        (config.hue, color.turn_hue, drawn.hue),
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
def _leveled(image: jax.Array, drawn: Draw, config: Augmentation) -> jax.Array:
    levels = image.astype(jnp.float32)
    if config.autocontrast:
        levels = jnp.where(drawn.has_autocontrast, jnp.round(color.autocontrast(levels)), levels)
    if config.equalize:
        levels = jnp.where(drawn.has_equalize, color.equalize(levels), levels)
    return levels.astype(jnp.uint8)


def _matrix(drawn: Draw, config: Augmentation, size: int, may_flip: jax.Array) -> jax.Array:
    """Return the map (3, 3) from points of the result to points of the cropped square.

    It undoes the perspective, the affine map and the flip, in this order.
    """
    matrix = flip(drawn.flipped & may_flip)
    if config.is_affine:
        moved = affine(drawn.angle, drawn.shift, drawn.scale, drawn.shear)
        matrix = jnp.matmul(matrix, moved, precision="highest")
    if config.is_perspective:
        seen = jnp.matmul(matrix, perspective(drawn.corners, size), precision="highest")
        matrix = jnp.where(drawn.has_perspective, seen, matrix)
    return matrix

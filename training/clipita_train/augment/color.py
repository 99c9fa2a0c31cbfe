"""Color changes of one image (H, W, 3), float32 from 0 to 255: JAX functions for use under `vmap`.

The definitions are those of Pillow (ImageEnhance, ImageOps), which torchvision follows too, but nothing is rounded in
between. Hue is turned in exact HSV, where Pillow has 256 steps for each of hue, saturation and value.
"""

import jax
import jax.numpy as jnp

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2, as in Pillow's convert("L")


def brightness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Multiply all levels by a factor: 0 gives black, 1 the image itself."""
    return jnp.clip(image * factor, 0, 255)


def contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Move all levels away from the mean gray of the image: factor 0 gives that gray, 1 the image itself."""
    mean = jnp.round(_gray(image).mean())
    return jnp.clip(mean + (image - mean) * factor, 0, 255)


def saturation(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Move the colors of each pixel away from its gray: factor 0 gives a gray image, 1 the image itself."""
    gray = _gray(image)[:, :, None]
    return jnp.clip(gray + (image - gray) * factor, 0, 255)


def turn_hue(image: jax.Array, turns: jax.Array) -> jax.Array:
    """Turn the hue of every pixel by a part of the circle, keeping value and saturation: 1/3 turns red into green."""
    red, green, blue = image[:, :, 0], image[:, :, 1], image[:, :, 2]
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    divisor = jnp.where(chroma > 0, chroma, 1)
    sector = jnp.where(
        value == red,
        (green - blue) / divisor,
        jnp.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sector = sector + 6 * turns
    # Around the six sectors, each channel falls by the chroma in one of them, and rises again in another.
    places = [start + sector - 6 * jnp.floor((start + sector) / 6) for start in (5, 3, 1)]  # XLA does not vectorize `%`
    return jnp.stack([value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1) for k in places], axis=2)


def autocontrast(image: jax.Array) -> jax.Array:
    """Stretch each channel to the range from 0 to 255; a channel of a single level stays as it is."""
    low, high = image.min((0, 1), keepdims=True), image.max((0, 1), keepdims=True)
    stretched = (image - low) * (255 / jnp.where(high > low, high - low, 1))
    return jnp.where(high > low, stretched, image)


def equalize(image: jax.Array) -> jax.Array:
    """Make the levels of each channel about equally frequent. The image must hold whole numbers."""
    levels = image.astype(jnp.int32)

    def table(channel: jax.Array) -> jax.Array:  # (H, W) -> (256,)
        histogram = jnp.zeros(256, jnp.int32).at[channel.ravel()].add(1)
        step = (channel.size - histogram[channel.max()]) // 255
        before = jnp.cumsum(histogram) - histogram
        equal = jnp.minimum((step // 2 + before) // jnp.maximum(step, 1), 255)
        return jnp.where(step > 0, equal, jnp.arange(256))

    channels = [table(levels[:, :, c])[levels[:, :, c]] for c in range(3)]
    return jnp.stack(channels, axis=2).astype(image.dtype)


def _gray(image: jax.Array) -> jax.Array:
    red, green, blue = (weight * image[:, :, c] for c, weight in enumerate(LUMA))
    return red + green + blue  # (H, W)

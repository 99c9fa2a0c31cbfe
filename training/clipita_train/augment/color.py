"""What augmentation does to the colours of one image (H, W, 3), float32 in 0..255: jax functions for use under vmap.

The definitions are Pillow's (ImageEnhance, ImageOps), which those of torchvision follow too, but nothing is rounded in
between; hue is turned in exact HSV, where Pillow has 256 steps for each of the three.
"""

import jax
import jax.numpy as jnp

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2, as in Pillow's convert("L")


def brightness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Times a factor; 0 is black, 1 the image."""
    return jnp.clip(image * factor, 0, 255)


def contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Away from the mean grey of the image, or towards it; 0 is that grey, 1 the image."""
    mean = jnp.round(_grey(image).mean())
    return jnp.clip(mean + (image - mean) * factor, 0, 255)


def saturation(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Away from the grey of each pixel, or towards it; 0 is the image in greys, 1 the image."""
    grey = _grey(image)[:, :, None]
    return jnp.clip(grey + (image - grey) * factor, 0, 255)


def turn_hue(image: jax.Array, turns: jax.Array) -> jax.Array:
    """Turns the hue of every pixel by a part of the circle; 1/3 makes red green. Value and saturation stay."""
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
    # Each channel falls from the value by the chroma over one of the six sectors, and rises over another.
    places = [start + sector - 6 * jnp.floor((start + sector) / 6) for start in (5, 3, 1)]  # `%` is not vectorised
    return jnp.stack([value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1) for k in places], axis=2)


def autocontrast(image: jax.Array) -> jax.Array:
    """Stretches each channel to 0..255; one of a single level stays."""
    low, high = image.min((0, 1), keepdims=True), image.max((0, 1), keepdims=True)
    stretched = (image - low) * (255 / jnp.where(high > low, high - low, 1))
    return jnp.where(high > low, stretched, image)


def equalize(image: jax.Array) -> jax.Array:
    """Makes the levels of each channel about equally frequent; of whole levels: round before."""
    levels = image.astype(jnp.int32)

    def table(channel: jax.Array) -> jax.Array:  # (H, W) -> (256,)
        histogram = jnp.zeros(256, jnp.int32).at[channel.ravel()].add(1)
        step = (channel.size - histogram[channel.max()]) // 255
        before = jnp.cumsum(histogram) - histogram
        equal = jnp.minimum((step // 2 + before) // jnp.maximum(step, 1), 255)
        return jnp.where(step > 0, equal, jnp.arange(256))

    channels = [table(levels[:, :, c])[levels[:, :, c]] for c in range(3)]
    return jnp.stack(channels, axis=2).astype(image.dtype)


def _grey(image: jax.Array) -> jax.Array:
    red, green, blue = (weight * image[:, :, c] for c, weight in enumerate(LUMA))
    return red + green + blue  # (H, W)

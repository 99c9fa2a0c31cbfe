"""Compute one projective map for crop, flip, rotation, shift, scale, shear and perspective, and apply it once.

Points are (x, y) in pixels, measured from the middle of the image, so that the identity is exact. A matrix (3, 3) maps
a point of the result to the point it comes from, which is the direction in which images are sampled. So `A @ B` first
undoes B, then A. Each step follows the conventions of torchvision (RandomAffine, RandomPerspective). A single
interpolation keeps more detail than one for each step, and cuts off nothing that a later step would bring back.
"""

import jax
import jax.numpy as jnp


def affine(angle: jax.Array, shift: jax.Array, scale: jax.Array, shear: jax.Array) -> jax.Array:
    """Return the matrix that undoes an affine map: shear (2,), then rotation, scale and shift (2,).

    Angles are in radians; positive ones turn clockwise.
    """
    x, y = shear[0], shear[1]
    cos, sin = jnp.cos(angle - y) / jnp.cos(y), jnp.sin(angle - y) / jnp.cos(y)
    a, b = cos, -cos * jnp.tan(x) - jnp.sin(angle)
    c, d = sin, -sin * jnp.tan(x) + jnp.cos(angle)  # the determinant a d - b c is 1
    inverse = jnp.stack([d, -b, -c, a]).reshape(2, 2) / scale
    offset = -(inverse[:, 0] * shift[0] + inverse[:, 1] * shift[1])
    return jnp.concatenate([jnp.concatenate([inverse, offset[:, None]], 1), jnp.array([[0.0, 0.0, 1.0]])])


def flip(flipped: jax.Array) -> jax.Array:
    """Return the matrix that undoes a mirroring of left and right, or the identity where `flipped` is False."""
    return jnp.diag(jnp.stack([jnp.where(flipped, -1.0, 1.0), jnp.ones(()), jnp.ones(())]))


def perspective(corners: jax.Array, size: int) -> jax.Array:
    """Return the matrix that undoes the map of the corners of a square image to `corners`.

    The map of the unit square to a quadrilateral is from Heckbert, "Fundamentals of Texture Mapping and Image Warping"
    (1989), section 2.2.3. Its inverse is the adjugate, up to a factor.

    Args:
        corners: (4, 2), clockwise from the upper left, each in its own quadrant.
        size: Side of the image.
    """
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = corners
    dx1, dx2, dx3 = x1 - x2, x3 - x2, x0 - x1 + x2 - x3
    dy1, dy2, dy3 = y1 - y2, y3 - y2, y0 - y1 + y2 - y3
    determinant = dx1 * dy2 - dx2 * dy1
    g, h = (dx3 * dy2 - dx2 * dy3) / determinant, (dx1 * dy3 - dx3 * dy1) / determinant
    a, b, c = jnp.stack(
        [
            jnp.stack([x1 - x0 + g * x1, y1 - y0 + g * y1, g]),
            jnp.stack([x3 - x0 + h * x3, y3 - y0 + h * y3, h]),
            jnp.stack([x0, y0, jnp.ones(())]),
        ]
    )  # the columns
    adjugate = jnp.stack([jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)])
    middle = (size - 1) / 2
    to_pixels = jnp.array([[size - 1.0, 0.0, -middle], [0.0, size - 1.0, -middle], [0.0, 0.0, 1.0]])
    matrix = jnp.matmul(to_pixels, adjugate, precision="highest")
    return matrix / matrix[2:, 2:]  # points in front of the viewer get a positive third coordinate


def warp(image: jax.Array, matrix: jax.Array, corner: jax.Array, size: int, fill: int | None) -> jax.Array:
    """Sample a square (size, size, C) from an image (H, W, C), uint8 or float, by one bilinear interpolation.

    Args:
        image: The image. Beyond its edges its outermost pixels are repeated.
        matrix: (3, 3), maps points of the result to points of the cropped square.
        corner: (2,) integers, x and y of the upper left pixel of the cropped square, which may lie partly beyond the
            image.
        size: Side of the result, and of the cropped square.
        fill: Level of points beyond the cropped square; None shows what the image has there.
    """
    height, width, channels = image.shape
    middle = (size - 1) / 2
    line = jnp.arange(size, dtype=jnp.float32) - middle
    u, v = line[None, :], line[:, None]
    x, y, w = (row[0] * u + row[1] * v + row[2] for row in matrix)  # (S, S) each
    w = jnp.maximum(w, 1e-3)  # points behind the horizon are moved far out
    x, y = x / w, y / w
    inside = jnp.maximum(jnp.abs(x), jnp.abs(y)) < size / 2
    x = jnp.clip(x + (middle + corner[0].astype(jnp.float32)), 0, width - 1)
    y = jnp.clip(y + (middle + corner[1].astype(jnp.float32)), 0, height - 1)
    left, top = jnp.floor(x).astype(jnp.int32), jnp.floor(y).astype(jnp.int32)
    right, bottom = jnp.minimum(left + 1, width - 1), jnp.minimum(top + 1, height - 1)
    across, down = (x - jnp.floor(x))[:, :, None], (y - jnp.floor(y))[:, :, None]
    pixels = image.reshape(height * width, channels)

    def at(row: jax.Array, column: jax.Array) -> jax.Array:
        return pixels[row * width + column].astype(jnp.float32)

    upper = at(top, left) * (1 - across) + at(top, right) * across
    lower = at(bottom, left) * (1 - across) + at(bottom, right) * across
    sampled = upper * (1 - down) + lower * down
    return sampled if fill is None else jnp.where(inside[:, :, None], sampled, float(fill))

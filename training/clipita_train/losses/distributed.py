"""Losses that say what each device computes: a ring without a (B, B) matrix, and CLIP-Italian's loss, to reproduce it.

Both take the rows of a global batch, split over all axes of a mesh, as `engine.step.put_batch` splits them.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from clipita_train.losses.contrastive import sigmoid_contrastive, softmax_contrastive


def per_device_softmax(
    image: jax.Array,
    text: jax.Array,
    *,
    mesh: Mesh,
    logit_scale: float | jax.Array,
    margin: float = 0.0,
    mask: jax.Array | None = None,
    device_batch: int | None = None,
) -> jax.Array:
    """Compute CLIP-Italian's own loss, to reproduce it: each device compares only its own pairs.

    The original computed the gradients of each device's loss and averaged them, which is the gradient of this mean.
    Unlike `softmax_contrastive`, the loss depends on the number of pairs of a device, unless `device_batch` fixes it.

    Args:
        image: (B, E), unit norm; row i belongs to row i of `text`.
        text: (B, E), unit norm.
        mesh: The devices; B divides by their number.
        logit_scale: Multiplies the cosines.
        margin: As for `softmax_contrastive`.
        mask: (B,) bool, False for rows of padding. A device is weighted by its other rows.
        device_batch: How many pairs are compared with one another, so that one device can compute the loss of several;
            None: all pairs of a device.

    Returns:
        float32 scalar; ln(device_batch) where all cosines are equal.

    Raises:
        ValueError: The rows of a device do not divide by `device_batch`.
    """

    def of_group(image: jax.Array, text: jax.Array, mask: jax.Array, scale: jax.Array) -> tuple[jax.Array, jax.Array]:
        known = mask[:, None] & mask[None, :]
        rows = mask.sum().astype(jnp.float32)
        return softmax_contrastive(image, text, logit_scale=scale, margin=margin, known=known) * rows, rows

    def on_device(image: jax.Array, text: jax.Array, mask: jax.Array, scale: jax.Array) -> jax.Array:
        size = device_batch or len(image)
        if len(image) % size:
            raise ValueError(
                f"{len(image)} pairs on each of {mesh.size} devices do not divide into groups of {size}: choose "
                "another batch size, or fewer devices"
            )
        image, text, mask = (rows.reshape(-1, size, *rows.shape[1:]) for rows in (image, text, mask))
        loss, rows = jax.vmap(of_group, in_axes=(0, 0, 0, None))(image, text, mask, scale)
        loss, rows = jax.lax.psum((loss.sum(), rows.sum()), mesh.axis_names)
        return loss / jnp.maximum(rows, 1.0)

    return _on_devices(on_device, mesh)(image, text, _mask(image, text, mask), jnp.asarray(logit_scale, jnp.float32))


def sigmoid_ring(
    image: jax.Array,
    text: jax.Array,
    *,
    mesh: Mesh,
    logit_scale: float | jax.Array,
    logit_bias: float | jax.Array,
    margin: float = 0.0,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Compute `sigmoid_contrastive` of the global batch, with texts passed from device to device around a ring.

    A device holds (B / devices)^2 logits at a time, forward and backward, instead of B^2 / devices, and never all
    texts.

    Args:
        image: (B, E), unit norm; row i belongs to row i of `text`.
        text: (B, E), unit norm.
        mesh: The devices; B divides by their number.
        logit_scale: Multiplies the cosines.
        logit_bias: Added to the logits.
        margin: As for `softmax_contrastive`.
        mask: (B,) bool, False for rows of padding.

    Returns:
        float32 scalar.

    Source: Zhai et al., "Sigmoid Loss for Language Image Pre-Training" (arXiv:2303.15343), section 3.3.
    """
    axes, size = mesh.axis_names, mesh.size
    to_next = [(device, (device + 1) % size) for device in range(size)]

    def on_device(image: jax.Array, text: jax.Array, mask: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        block = partial(sigmoid_contrastive, image, logit_scale=scale, logit_bias=bias, margin=margin)
        no_pair = jnp.zeros((len(image), len(text)), bool)

        @jax.checkpoint  # computes logits again in the backward pass, instead of keeping those of every turn
        def turn(total: jax.Array, text: jax.Array, text_mask: jax.Array) -> jax.Array:
            known = mask[:, None] & text_mask[None, :]
            pictures = known.any(axis=1).sum().astype(jnp.float32)  # `block` divides by this
            return total + pictures * block(text, positive=no_pair, known=known)

        def pass_on(carry: tuple[jax.Array, ...], _: None) -> tuple[tuple[jax.Array, ...], None]:
            total, text, text_mask = carry
            text, text_mask = jax.lax.ppermute((text, text_mask), axes, to_next)
            return (turn(total, text, text_mask), text, text_mask), None

        rows = mask.sum().astype(jnp.float32)
        own = rows * block(text, known=mask[:, None] & mask[None, :])
        (total, _, _), _ = jax.lax.scan(pass_on, (own, text, mask), length=size - 1)
        return jax.lax.psum(total, axes) / jnp.maximum(jax.lax.psum(rows, axes), 1.0)

    numbers = (jnp.asarray(number, jnp.float32) for number in (logit_scale, logit_bias))
    return _on_devices(on_device, mesh)(image, text, _mask(image, text, mask), *numbers)


def _mask(image: jax.Array, text: jax.Array, mask: jax.Array | None) -> jax.Array:
    if image.shape != text.shape:
        raise ValueError(f"images {image.shape} and texts {text.shape} are no pairs")
    return jnp.ones(len(image), bool) if mask is None else mask


def _on_devices(function: Any, mesh: Mesh) -> Any:
    """Return a function that runs on each device's rows of the first three arguments; others are the same on all."""
    rows = PartitionSpec(mesh.axis_names)

    def call(image: jax.Array, text: jax.Array, mask: jax.Array, *numbers: jax.Array) -> jax.Array:
        if len(image) % mesh.size:
            raise ValueError(f"{len(image)} rows do not divide by {mesh.size} devices: pad them (see pad_rows)")
        specs = (rows, rows, rows, *(PartitionSpec() for _ in numbers))
        mapped = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=PartitionSpec())
        return mapped(image, text, mask, *numbers)

    return call

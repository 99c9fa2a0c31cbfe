"""Contrastive losses between image and text embeddings.

All are written for whole batches. Under `jax.jit`, with rows split over devices, they are the loss of the global batch.
"""

import jax
import jax.numpy as jnp

# Used in place of minus infinity in a log-sum-exp: its exponential is 0, but sums and gradients stay finite.
_LOG_ZERO = -1e30


def softmax_contrastive(
    image: jax.Array,
    text: jax.Array,
    *,
    logit_scale: float | jax.Array,
    margin: float = 0.0,
    positive: jax.Array | None = None,
    known: jax.Array | None = None,
) -> jax.Array:
    """Compute the CLIP loss; pictures may have any number of right texts, and texts any number of right pictures.

    Each positive pair is a term -log(p), where p is the softmax over that pair and the negatives of its row. The other
    positives of the row are left out, so a label and its hypernym do not push each other away. Terms are averaged by
    weight within a row, and then over the rows that have a positive. The same is done over columns, and the loss is the
    mean of the two.

    Args:
        image: (B, E), unit norm.
        text: (K, E), unit norm.
        logit_scale: Multiplies the cosines.
        margin: Subtracted from the cosines of positive pairs, which must be right by so much more.
        positive: (B, K) bool, or weights >= 0 where 0 is a negative. Default: pair i, i is right, all others are wrong.
        known: (B, K) bool; where it is False, a pair is neither positive nor negative. Padded rows are left out by
            `known = mask[:, None] & mask[None, :]`.

    Returns:
        float32 scalar; 0 where there are no negatives.

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (arXiv:2103.00020).
    One term for each positive is as in L_out of Khosla et al., "Supervised Contrastive Learning" (arXiv:2004.11362),
    but without the other positives in its denominator. The margin is as in Yang et al. (arXiv:1902.08564).
    """
    cosines = _cosines(image, text)  # (B, K)
    weight, known = _pair_weights(cosines.shape, positive, known)
    logits = jnp.where(weight > 0, cosines - margin, cosines) * logit_scale
    negative = known & (weight == 0)
    return (_one_way(logits, weight, negative) + _one_way(logits.T, weight.T, negative.T)) / 2


def sigmoid_contrastive(
    image: jax.Array,
    text: jax.Array,
    *,
    logit_scale: float | jax.Array,
    logit_bias: float | jax.Array,
    margin: float = 0.0,
    positive: jax.Array | None = None,
    known: jax.Array | None = None,
) -> jax.Array:
    """Compute the SigLIP loss: each pair is right or wrong by itself; summed over texts and averaged over pictures.

    Args:
        image: (B, E), unit norm.
        text: (K, E), unit norm.
        logit_scale: Multiplies the cosines; SigLIP learns its logarithm, starting at ln 10.
        logit_bias: Added to the logits; SigLIP learns it, starting at -10.
        margin: As for `softmax_contrastive`.
        positive: (B, K) bool, or weights >= 0 of the right pairs; wrong pairs weigh 1. Default: pair i, i is right.
        known: (B, K) bool; pairs where it is False do not count, nor do pictures that have no other pair.

    Returns:
        float32 scalar.

    Source: Zhai et al., "Sigmoid Loss for Language Image Pre-Training" (arXiv:2303.15343).
    """
    cosines = _cosines(image, text)  # (B, K)
    weight, known = _pair_weights(cosines.shape, positive, known)
    is_positive = weight > 0
    logits = jnp.where(is_positive, cosines - margin, cosines) * logit_scale + logit_bias
    terms = jax.nn.softplus(jnp.where(is_positive, -logits, logits))  # -log sigmoid(+-logits)
    terms *= jnp.where(is_positive, weight, known.astype(jnp.float32))
    return terms.sum() / jnp.maximum(known.any(axis=1).sum().astype(jnp.float32), 1.0)


def _cosines(image: jax.Array, text: jax.Array) -> jax.Array:  # (B, E), (K, E) -> (B, K) float32
    # TPUs and recent GPUs would multiply float32 with fewer bits; times a scale of 20 to 100 that shows in the loss.
    return jnp.matmul(image.astype(jnp.float32), text.astype(jnp.float32).T, precision=jax.lax.Precision.HIGHEST)


def _pair_weights(
    shape: tuple[int, ...], positive: jax.Array | None, known: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Return the weights of positive pairs (B, K) float32, 0 for all others, and which pairs are known (B, K) bool."""
    if positive is None and shape[0] != shape[1]:
        raise ValueError(f"{shape[0]} images and {shape[1]} texts are no pairs: say which match by `positive`")
    for name, array in (("positive", positive), ("known", known)):
        if array is not None and array.shape != shape:
            raise ValueError(f"{name} must be (images, texts) = {shape}, not {array.shape}")
    weight = jnp.eye(shape[0]) if positive is None else positive.astype(jnp.float32)
    known = jnp.ones(shape, bool) if known is None else known
    return jnp.where(known, weight, 0.0), known


def _one_way(logits: jax.Array, weight: jax.Array, negative: jax.Array) -> jax.Array:
    """Return the mean over rows of -log p of their positives against their negatives; arrays are (rows, columns)."""
    negatives = jax.nn.logsumexp(jnp.where(negative, logits, _LOG_ZERO), axis=1, keepdims=True)
    terms = jax.nn.softplus(negatives - logits)  # -log(e^l / (e^l + sum of negatives))
    total = weight.sum(axis=1)  # (rows,)
    rows = (weight * terms).sum(axis=1) / jnp.where(total > 0, total, 1.0)
    return rows.sum() / jnp.maximum((total > 0).sum().astype(jnp.float32), 1.0)

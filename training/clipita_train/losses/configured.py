"""The loss between pairs that a configuration asks for, with its scale and bias."""

import math
from typing import assert_never

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from clipita_train.engine.config import LossConfig
from clipita_train.losses.contrastive import sigmoid_contrastive, softmax_contrastive
from clipita_train.losses.distributed import per_device_softmax, sigmoid_ring


class PairLoss(nnx.Module):
    """Computes a loss from image and text embeddings.

    It is part of the model, so that a learned scale is trained and saved. A learned scale is held as its logarithm,
    `log_scale`, as transformers does for `logit_scale`. A fixed scale is not a parameter at all: nothing can decay it,
    and no export can mistake it for a logarithm. Use the properties to read scale and bias.

    Args:
        config: Which loss, and where scale and bias start.
        mesh: The devices over which the batch is split. The loss per device needs it; with it the sigmoid loss is
            computed in a ring.

    Raises:
        ValueError: The loss per device is asked for without a mesh.
    """

    def __init__(self, config: LossConfig, mesh: Mesh | None = None) -> None:
        if config.kind == "per_device" and mesh is None:
            raise ValueError("the loss per device needs the mesh of the devices")
        self.config, self.mesh = config, mesh
        if config.learned:
            self.log_scale = nnx.Param(jnp.float32(math.log(config.logit_scale)))
        if config.learned and config.kind == "sigmoid":
            self.bias = nnx.Param(jnp.float32(config.logit_bias))

    @property
    def logit_scale(self) -> jax.Array:
        """The multiplier of the cosines, () float32."""
        if not self.config.learned:
            return jnp.float32(self.config.logit_scale)
        log_scale, largest = self.log_scale[...], math.log(self.config.largest_scale)
        # Only the value is limited, and not the gradient: otherwise a scale beyond the limit could never come back.
        return jnp.exp(log_scale + jax.lax.stop_gradient(jnp.minimum(log_scale, largest) - log_scale))

    @property
    def logit_bias(self) -> jax.Array:
        """The number added to the logits, () float32; 0 for all losses but the sigmoid loss."""
        return self.bias[...] if hasattr(self, "bias") else jnp.float32(self.config.logit_bias)

    def __call__(self, image: jax.Array, text: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        """Return the loss () float32.

        Args:
            image: (B, E), unit norm.
            text: (B, E), unit norm; row i belongs to row i of `image`.
            mask: (B,) bool, False for rows of padding; None means there are none.
        """
        scale, margin = self.logit_scale, self.config.margin
        known = None if mask is None else mask[:, None] & mask[None, :]
        match self.config.kind:
            case "softmax":
                return softmax_contrastive(image, text, logit_scale=scale, margin=margin, known=known)
            case "per_device":
                assert self.mesh is not None
                options = {"logit_scale": scale, "margin": margin, "device_batch": self.config.device_batch}
                return per_device_softmax(image, text, mesh=self.mesh, mask=mask, **options)
            case "sigmoid":
                options = {"logit_scale": scale, "logit_bias": self.logit_bias, "margin": margin}
                if self.mesh is None:
                    return sigmoid_contrastive(image, text, known=known, **options)
                return sigmoid_ring(image, text, mesh=self.mesh, mask=mask, **options)
            case _:
                assert_never(self.config.kind)

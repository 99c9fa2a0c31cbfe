"""The dual encoder: an image tower, a text tower, and the projections that join them in one space."""

# JAX and Flax leave parts of their interfaces without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from clipita.towers.bert import Bert
from clipita.towers.config import DualConfig, ProjectionConfig
from clipita.towers.efficientnet import EfficientNetLite

_NORM_FLOOR = 1e-12  # of a vector of zeros, so that it gives zeros and not NaN


class Projection(nnx.Module):
    """Pooled features (B, D) -> (B, E): W x (+ b), plus W2 gelu(W1 x + b1) + b2 where there is a hidden layer.

    The second matrix begins at zero, so that a head begins as its linear part.
    """

    def __init__(self, features: int, embed_dim: int, config: ProjectionConfig, *, rngs: nnx.Rngs) -> None:
        hidden = config.hidden
        zeros = nnx.initializers.zeros_init()
        self.linear = nnx.Linear(features, embed_dim, use_bias=config.bias, rngs=rngs)
        self.mlp_in = None if hidden is None else nnx.Linear(features, hidden, rngs=rngs)
        self.mlp_out = None if hidden is None else nnx.Linear(hidden, embed_dim, kernel_init=zeros, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.linear(x)
        if self.mlp_in is None or self.mlp_out is None:
            return y
        return y + self.mlp_out(jax.nn.gelu(self.mlp_in(x), approximate=False))


class DualEncoder(nnx.Module):
    """Italian text and images in one space.

    Args:
        config: the architecture.
        folded: as for `EfficientNetLite`.
        rngs: random numbers of the initial weights.
    """

    def __init__(self, config: DualConfig, *, folded: bool = False, rngs: nnx.Rngs) -> None:
        self.mean, self.std = config.preprocessing.mean, config.preprocessing.std
        self.image = EfficientNetLite(config.image, folded=folded, rngs=rngs)
        self.text = Bert(config.text, rngs=rngs)
        project = config.image_projection, config.text_projection
        self.image_projection = Projection(config.image.features, config.embed_dim, project[0], rngs=rngs)
        self.text_projection = Projection(config.text.features, config.embed_dim, project[1], rngs=rngs)

    def image_features(self, pixels: jax.Array) -> jax.Array:
        """Pixels (B, S, S, 3), uint8 or float in 0..255 -> pooled features (B, D) float32, before the projection."""
        mean, std = (jnp.asarray(v, jnp.float32)[None, None, None] for v in (self.mean, self.std))
        return self.image((pixels.astype(jnp.float32) - mean) / std)

    def text_features(self, input_ids: jax.Array, attention_mask: jax.Array) -> jax.Array:
        """Ids and mask (B, L), integers -> pooled features (B, D) float32, before the projection."""
        return self.text(input_ids, attention_mask)

    def project_image(self, features: jax.Array) -> jax.Array:
        """Pooled features (B, D) -> embeddings (B, E) of unit norm."""
        return unit_norm(self.image_projection(features))

    def project_text(self, features: jax.Array) -> jax.Array:
        """Pooled features (B, D) -> embeddings (B, E) of unit norm."""
        return unit_norm(self.text_projection(features))

    def __call__(
        self, pixels: jax.Array, input_ids: jax.Array, attention_mask: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Image and text embeddings, each (B, E) of unit norm; the two batches may differ in size."""
        image = self.project_image(self.image_features(pixels))
        return image, self.project_text(self.text_features(input_ids, attention_mask))


def unit_norm(x: jax.Array) -> jax.Array:
    """Rows of (B, E) divided by their length; rows of zeros stay zeros."""
    # The floor is inside the root: the gradient of a norm at zero is NaN.
    squares = jnp.square(x).sum(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squares, np.float32(_NORM_FLOOR**2)))

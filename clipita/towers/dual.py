"""Define the dual encoder: an image tower, a text tower, and the projections into one space."""

# JAX and Flax leave parts of their interfaces without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from typing import assert_never

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from clipita.towers.bert import Bert
from clipita.towers.clip_text import ClipText
from clipita.towers.config import BertConfig, ClipTextConfig, DualConfig, ProjectionConfig, VitConfig
from clipita.towers.efficientnet import EfficientNetLite
from clipita.towers.efficientnet_config import EfficientNetLiteConfig
from clipita.towers.vit import Vit

_NORM_FLOOR = 1e-12  # least norm to divide by, so that a vector of zeros stays zeros and becomes no NaN


class Projection(nnx.Module):
    """A projection from pooled features (B, D) to (B, E): W x + b, plus W2 gelu(W1 x + b1) + b2 with a hidden layer.

    Either part may be missing; without both it is the identity. The second matrix of an MLP beside a linear map is zero
    at first, so that training begins with the linear part alone.
    """

    def __init__(self, features: int, embed_dim: int, config: ProjectionConfig, *, rngs: nnx.Rngs) -> None:
        hidden, bias = config.hidden, config.bias or config.linear
        second = nnx.initializers.zeros_init() if config.linear else nnx.initializers.lecun_normal()
        self.linear = nnx.Linear(features, embed_dim, use_bias=config.bias, rngs=rngs) if config.linear else None
        self.mlp_in = nnx.Linear(features, hidden, use_bias=bias, rngs=rngs) if hidden else None
        self.mlp_out = nnx.Linear(hidden, embed_dim, use_bias=bias, kernel_init=second, rngs=rngs) if hidden else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Project pooled features (B, D) to (B, E)."""
        if self.mlp_in is None or self.mlp_out is None:
            return x if self.linear is None else self.linear(x)
        y = self.mlp_out(jax.nn.gelu(self.mlp_in(x), approximate=False))
        return y if self.linear is None else self.linear(x) + y


class DualEncoder(nnx.Module):
    """A model of an image tower and a text tower, with projections into one space.

    Args:
        config: The architecture.
        folded: As for `EfficientNetLite`.
        dtype: The type that the towers' matrix products and convolutions are computed in. Weights, norms, sums over
            layers, pooled features and projections are always float32.
        rngs: The random numbers for the initial weights.
    """

    def __init__(
        self, config: DualConfig, *, folded: bool = False, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> None:
        self.mean, self.std = config.preprocessing.mean, config.preprocessing.std
        match config.image:
            case VitConfig() as image:
                self.image = Vit(image, config.preprocessing.image_size, dtype=dtype, rngs=rngs)
            case EfficientNetLiteConfig() as image:
                self.image = EfficientNetLite(image, folded=folded, dtype=dtype, rngs=rngs)
            case _:
                assert_never(config.image)
        match config.text:
            case BertConfig() as text:
                self.text = Bert(text, dtype=dtype, rngs=rngs)
            case ClipTextConfig() as text:
                self.text = ClipText(text, dtype=dtype, rngs=rngs)
            case _:
                assert_never(config.text)
        project = config.image_projection, config.text_projection
        self.image_projection = Projection(config.image.features, config.embed_dim, project[0], rngs=rngs)
        self.text_projection = Projection(config.text.features, config.embed_dim, project[1], rngs=rngs)

    def image_features(self, pixels: jax.Array) -> jax.Array:
        """Compute pooled features (B, D) float32 of pixels (B, S, S, 3), uint8 or float in 0..255."""
        return self.image(self._normalized(pixels))

    def image_positions(self, pixels: jax.Array) -> jax.Array:
        """Compute projected vectors (B, N, E) at all positions of pixels (B, S, S, 3), row by row, without a norm."""
        return self.image_projection(self.image.positions(self._normalized(pixels)))

    def _normalized(self, pixels: jax.Array) -> jax.Array:
        mean, std = (jnp.asarray(v, jnp.float32)[None, None, None] for v in (self.mean, self.std))
        return (pixels.astype(jnp.float32) - mean) / std

    def text_features(
        self, input_ids: jax.Array, attention_mask: jax.Array, dropout_keys: jax.Array | None = None
    ) -> jax.Array:
        """Compute pooled features (B, D) float32 of ids and mask (B, L), integers.

        Dropout keys (B,) are for training alone, as in `TransformerLayer`.
        """
        return self.text(input_ids, attention_mask, dropout_keys)

    def project_image(self, features: jax.Array) -> jax.Array:
        """Project pooled features of images (B, D) to embeddings (B, E) of unit norm."""
        return unit_norm(self.image_projection(features))

    def project_text(self, features: jax.Array) -> jax.Array:
        """Project pooled features of texts (B, D) to embeddings (B, E) of unit norm."""
        return unit_norm(self.text_projection(features))

    def __call__(
        self, pixels: jax.Array, input_ids: jax.Array, attention_mask: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Embed images and texts, each as (B, E) of unit norm; the two batches may differ in size."""
        image = self.project_image(self.image_features(pixels))
        return image, self.project_text(self.text_features(input_ids, attention_mask))


def unit_norm(x: jax.Array) -> jax.Array:
    """Divide the rows of (B, E) by their norms; rows of zeros stay zeros."""
    # The floor is inside the root, since the gradient of a norm at zero is NaN.
    squares = jnp.square(x).sum(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squares, np.float32(_NORM_FLOOR**2)))

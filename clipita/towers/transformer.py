"""The layer that all transformer towers are made of: self-attention, then an MLP, each added to its input.

Source: Vaswani et al., "Attention Is All You Need" (arXiv:1706.03762). BERT normalises after each sum, the others
before attention and before the MLP.
"""

# JAX and Flax leave parts of their interfaces without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from clipita.towers.config import Activation, BertConfig, TransformerConfig

FIRST = slice(0, 1)
LAST = slice(-1, None)
ALL = slice(None)


def linear(inputs: int, outputs: int, rngs: nnx.Rngs, dtype: DTypeLike = jnp.float32) -> nnx.Linear:
    """With the initial weights of a transformer."""
    return nnx.Linear(inputs, outputs, kernel_init=nnx.initializers.normal(0.02), dtype=dtype, rngs=rngs)


def embed(rows: int, width: int, rngs: nnx.Rngs) -> nnx.Embed:
    """With the initial weights of a transformer."""
    return nnx.Embed(rows, width, embedding_init=nnx.initializers.normal(0.02), rngs=rngs)


def _quick_gelu(x: jax.Array) -> jax.Array:  # Hendrycks and Gimpel, arXiv:1606.08415; CLIP's choice
    return x * jax.nn.sigmoid(x * 1.702)


_ACTIVATIONS: dict[Activation, Callable[[jax.Array], jax.Array]] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "quick_gelu": _quick_gelu,
    "relu": jax.nn.relu,
}


class AttentionMlp(nnx.Module):
    """The weights of one layer, and its two halves.

    Only matrix products, and what is between two of them, are computed in `dtype`. What is added up over the layers,
    and the norms, stay in float32: rounded to bfloat16, that sum alone moves the embeddings of a text to a cosine of
    0.96 to what they were.
    """

    def __init__(self, config: TransformerConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs) -> None:
        width = config.width
        self.heads = config.heads
        self.activation = _ACTIVATIONS[config.activation]
        self.query, self.key, self.value, self.output = (linear(width, width, rngs, dtype) for _ in range(4))
        self.mlp_in = linear(width, config.mlp_width, rngs, dtype)
        self.mlp_out = linear(config.mlp_width, width, rngs, dtype)
        self.mlp_norm = nnx.LayerNorm(width, epsilon=config.epsilon, rngs=rngs)

    def attend(self, asking: jax.Array, x: jax.Array, mask: jax.Array | None, causal: bool) -> jax.Array:
        """What (B, Q, D) finds in (B, L, D), where the mask (B, 1, 1, L) is true -> (B, Q, D)."""
        q, k, v = (
            project(y).reshape(*y.shape[:2], self.heads, -1)  # (B, L, heads, D / heads)
            for project, y in ((self.query, asking), (self.key, x), (self.value, x))
        )
        attended = jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal)
        return self.output(attended.reshape(asking.shape)).astype(asking.dtype)

    def mlp(self, x: jax.Array) -> jax.Array:  # (B, L, D) -> (B, L, D)
        return self.mlp_out(self.activation(self.mlp_in(x))).astype(x.dtype)


class TransformerLayer(AttentionMlp):
    """One layer.

    Attributes:
        rematerialise: compute what is inside it again for gradients instead of keeping it; training sets it.
    """

    def __init__(self, config: TransformerConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs) -> None:
        super().__init__(config, dtype=dtype, rngs=rngs)
        self.rematerialise = False
        self.norm_first = not isinstance(config, BertConfig)
        self.attention_norm = nnx.LayerNorm(config.width, epsilon=config.epsilon, rngs=rngs)

    def __call__(
        self, x: jax.Array, mask: jax.Array | None = None, *, causal: bool = False, kept: slice = ALL
    ) -> jax.Array:
        """The layer's output for the tokens `kept`: the last layer is computed for the pooled token alone.

        Args:
            x: (B, L, D).
            mask: bool (B, 1, 1, L), true for tokens that may be seen; None for all.
            causal: whether a token sees only itself and those before it; with all tokens kept.
            kept: which tokens; all of them are seen.
        """
        if not self.rematerialise:
            return self.output_of(x, mask, causal, kept)

        @nnx.remat
        def again(layer: TransformerLayer, x: jax.Array, mask: jax.Array | None) -> jax.Array:
            return layer.output_of(x, mask, causal, kept)

        return again(self, x, mask)

    def output_of(self, x: jax.Array, mask: jax.Array | None, causal: bool, kept: slice) -> jax.Array:
        """The same, nothing computed twice."""
        if self.norm_first:
            normed = self.attention_norm(x)
            x = x[:, kept] + self.attend(normed[:, kept], normed, mask, causal)
            return x + self.mlp(self.mlp_norm(x))
        x = self.attention_norm(x[:, kept] + self.attend(x[:, kept], x, mask, causal))
        return self.mlp_norm(x + self.mlp(x))

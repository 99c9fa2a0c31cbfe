"""Define the layer of all transformer towers: self-attention, then an MLP, each added to its input.

Source: Vaswani et al., "Attention Is All You Need" (arXiv:1706.03762). BERT normalizes after each sum, the others
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
    """Make a linear layer with the initial weights of a transformer."""
    return nnx.Linear(inputs, outputs, kernel_init=nnx.initializers.normal(0.02), dtype=dtype, rngs=rngs)


def embed(rows: int, width: int, rngs: nnx.Rngs) -> nnx.Embed:
    """Make a table of embeddings with the initial weights of a transformer."""
    return nnx.Embed(rows, width, embedding_init=nnx.initializers.normal(0.02), rngs=rngs)


def _quick_gelu(x: jax.Array) -> jax.Array:  # Hendrycks and Gimpel, arXiv:1606.08415; CLIP's choice
    return x * jax.nn.sigmoid(x * 1.702)


_ACTIVATIONS: dict[Activation, Callable[[jax.Array], jax.Array]] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "quick_gelu": _quick_gelu,
    "relu": jax.nn.relu,
}


def folded(keys: jax.Array | None, number: int) -> jax.Array | None:
    """Derive the keys (B,) for one of the places that drop values; None stays None."""
    return None if keys is None else jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)


def dropped(dropout: nnx.Dropout, x: jax.Array, keys: jax.Array | None) -> jax.Array:
    """Apply dropout to (B, ...), to each row by its own key; without keys nothing is dropped."""

    def of_row(row: jax.Array, key: jax.Array) -> jax.Array:
        return dropout(row, rngs=key)

    return x if keys is None else jax.vmap(of_row)(x, keys)


def _attention_weights(q: jax.Array, k: jax.Array, mask: jax.Array | None, causal: bool) -> jax.Array:
    """Compute attention weights (B, heads, Q, L) float32, to which dropout can be applied.

    `jax.nn.dot_product_attention` computes the same inside, where nothing can be dropped.
    """
    scores = jnp.einsum("bqhd,blhd->bhql", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    if causal:
        earlier = jnp.tril(jnp.ones(scores.shape[2:], bool))[None, None]
        mask = earlier if mask is None else mask & earlier
    return jax.nn.softmax(scores if mask is None else jnp.where(mask, scores, jnp.finfo(scores.dtype).min))


class AttentionMlp(nnx.Module):
    """The weights of one layer, and its two halves, attention and MLP.

    Only matrix products, and the steps between two of them, are computed in `dtype`. The sum over the layers and the
    norms stay in float32: rounding that sum to bfloat16 would alone bring the embeddings of a text to a cosine of 0.96.

    Dropout is where BERT has it: on the weights of attention, and on the output of each half. Its rate is 0 until
    training sets another, and without keys there is no dropout.
    """

    def __init__(self, config: TransformerConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs) -> None:
        width = config.width
        self.heads = config.heads
        self.activation = _ACTIVATIONS[config.activation]
        self.query, self.key, self.value, self.output = (linear(width, width, rngs, dtype) for _ in range(4))
        self.mlp_in = linear(width, config.mlp_width, rngs, dtype)
        self.mlp_out = linear(config.mlp_width, width, rngs, dtype)
        self.mlp_norm = nnx.LayerNorm(width, epsilon=config.epsilon, rngs=rngs)
        self.dropout = nnx.Dropout(0.0)

    def attend(
        self,
        queries: jax.Array,
        x: jax.Array,
        mask: jax.Array | None,
        causal: bool,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """Let the tokens `queries` (B, Q, D) attend to `x` (B, L, D) where the mask (B, 1, 1, L) is true; (B, Q, D)."""
        q, k, v = (
            project(y).reshape(*y.shape[:2], self.heads, -1)  # (B, L, heads, D / heads)
            for project, y in ((self.query, queries), (self.key, x), (self.value, x))
        )
        if dropout_keys is None:
            attended = jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal)
        else:
            weights = _attention_weights(q, k, mask, causal).astype(v.dtype)
            attended = jnp.einsum("bhql,blhd->bqhd", dropped(self.dropout, weights, folded(dropout_keys, 0)), v)
        found = self.output(attended.reshape(queries.shape)).astype(queries.dtype)
        return dropped(self.dropout, found, folded(dropout_keys, 1))

    def attend_to_itself(self, x: jax.Array) -> jax.Array:
        """Let each token of `x` (B, L, D) attend to itself alone; (B, L, D)."""
        return self.output(self.value(x)).astype(x.dtype)

    def mlp(self, x: jax.Array, dropout_keys: jax.Array | None = None) -> jax.Array:
        """Apply the MLP to each token: (B, L, D) -> (B, L, D)."""
        y = self.mlp_out(self.activation(self.mlp_in(x))).astype(x.dtype)
        return dropped(self.dropout, y, folded(dropout_keys, 2))


class TransformerLayer(AttentionMlp):
    """One layer of a transformer.

    Attributes:
        rematerialize: Compute its inner values again for gradients instead of keeping them; training sets it.
    """

    def __init__(self, config: TransformerConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs) -> None:
        super().__init__(config, dtype=dtype, rngs=rngs)
        self.rematerialize = False
        self.norm_first = not isinstance(config, BertConfig)
        self.attention_norm = nnx.LayerNorm(config.width, epsilon=config.epsilon, rngs=rngs)

    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None = None,
        *,
        causal: bool = False,
        kept: slice = ALL,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """Compute the layer's output for the tokens `kept`: the last layer needs only the pooled token.

        Args:
            x: (B, L, D).
            mask: Bool (B, 1, 1, L), true for tokens that may be seen; None for all.
            causal: Whether a token sees only itself and those before it; all tokens must then be kept.
            kept: The tokens to compute; they see all tokens.
            dropout_keys: (B,) PRNG keys for dropout in each row; None for no dropout.
        """
        if not self.rematerialize:
            return self.output_of(x, mask, causal, kept, dropout_keys)

        @nnx.remat
        def again(
            layer: TransformerLayer, x: jax.Array, mask: jax.Array | None, dropout_keys: jax.Array | None
        ) -> jax.Array:
            return layer.output_of(x, mask, causal, kept, dropout_keys)

        return again(self, x, mask, dropout_keys)

    def each_alone(self, x: jax.Array) -> jax.Array:
        """Compute the output (B, L, D) of a layer that normalizes first, with each token attending to itself alone."""
        x = x + self.attend_to_itself(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))

    def output_of(
        self, x: jax.Array, mask: jax.Array | None, causal: bool, kept: slice, dropout_keys: jax.Array | None
    ) -> jax.Array:
        """Compute the layer without rematerialization."""
        if self.norm_first:
            normed = self.attention_norm(x)
            x = x[:, kept] + self.attend(normed[:, kept], normed, mask, causal, dropout_keys)
            return x + self.mlp(self.mlp_norm(x), dropout_keys)
        x = self.attention_norm(x[:, kept] + self.attend(x[:, kept], x, mask, causal, dropout_keys))
        return self.mlp_norm(x + self.mlp(x, dropout_keys))

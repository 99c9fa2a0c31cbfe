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


def folded(keys: jax.Array | None, number: int) -> jax.Array | None:
    """Keys (B,) of one of the places where a row is dropped; of none, none."""
    return None if keys is None else jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)


def dropped(dropout: nnx.Dropout, x: jax.Array, keys: jax.Array | None) -> jax.Array:
    """What dropout leaves of (B, ...), of each row by its own key, whatever the others are; without keys, all."""

    def of_row(row: jax.Array, key: jax.Array) -> jax.Array:
        return dropout(row, rngs=key)

    return x if keys is None else jax.vmap(of_row)(x, keys)


def _attention_weights(q: jax.Array, k: jax.Array, mask: jax.Array | None, causal: bool) -> jax.Array:
    """(B, heads, Q, L) float32: what `jax.nn.dot_product_attention` computes inside, where nothing can be dropped."""
    scores = jnp.einsum("bqhd,blhd->bhql", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    if causal:
        earlier = jnp.tril(jnp.ones(scores.shape[2:], bool))[None, None]
        mask = earlier if mask is None else mask & earlier
    return jax.nn.softmax(scores if mask is None else jnp.where(mask, scores, jnp.finfo(scores.dtype).min))


class AttentionMlp(nnx.Module):
    """The weights of one layer, and its two halves.

    Only matrix products, and what is between two of them, are computed in `dtype`. What is added up over the layers,
    and the norms, stay in float32: rounded to bfloat16, that sum alone moves the embeddings of a text to a cosine of
    0.96 to what they were.

    Dropout is where BERT has it: on the weights of attention, and on what each half adds to its input. Its rate is 0
    until training sets another, and whoever gives no keys computes what there would be without it.
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
        asking: jax.Array,
        x: jax.Array,
        mask: jax.Array | None,
        causal: bool,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """What (B, Q, D) finds in (B, L, D), where the mask (B, 1, 1, L) is true -> (B, Q, D)."""
        q, k, v = (
            project(y).reshape(*y.shape[:2], self.heads, -1)  # (B, L, heads, D / heads)
            for project, y in ((self.query, asking), (self.key, x), (self.value, x))
        )
        if dropout_keys is None:
            attended = jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal)
        else:
            weights = _attention_weights(q, k, mask, causal).astype(v.dtype)
            attended = jnp.einsum("bhql,blhd->bqhd", dropped(self.dropout, weights, folded(dropout_keys, 0)), v)
        found = self.output(attended.reshape(asking.shape)).astype(asking.dtype)
        return dropped(self.dropout, found, folded(dropout_keys, 1))

    def mlp(self, x: jax.Array, dropout_keys: jax.Array | None = None) -> jax.Array:  # (B, L, D) -> (B, L, D)
        y = self.mlp_out(self.activation(self.mlp_in(x))).astype(x.dtype)
        return dropped(self.dropout, y, folded(dropout_keys, 2))


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
        self,
        x: jax.Array,
        mask: jax.Array | None = None,
        *,
        causal: bool = False,
        kept: slice = ALL,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """The layer's output for the tokens `kept`: the last layer is computed for the pooled token alone.

        Args:
            x: (B, L, D).
            mask: bool (B, 1, 1, L), true for tokens that may be seen; None for all.
            causal: whether a token sees only itself and those before it; with all tokens kept.
            kept: which tokens; all of them are seen.
            dropout_keys: (B,) PRNG keys, by which dropout leaves out some of each row; None leaves out nothing.
        """
        if not self.rematerialise:
            return self.output_of(x, mask, causal, kept, dropout_keys)

        @nnx.remat
        def again(
            layer: TransformerLayer, x: jax.Array, mask: jax.Array | None, dropout_keys: jax.Array | None
        ) -> jax.Array:
            return layer.output_of(x, mask, causal, kept, dropout_keys)

        return again(self, x, mask, dropout_keys)

    def output_of(
        self, x: jax.Array, mask: jax.Array | None, causal: bool, kept: slice, dropout_keys: jax.Array | None
    ) -> jax.Array:
        """The same, nothing computed twice."""
        if self.norm_first:
            normed = self.attention_norm(x)
            x = x[:, kept] + self.attend(normed[:, kept], normed, mask, causal, dropout_keys)
            return x + self.mlp(self.mlp_norm(x), dropout_keys)
        x = self.attention_norm(x[:, kept] + self.attend(x[:, kept], x, mask, causal, dropout_keys))
        return self.mlp_norm(x + self.mlp(x, dropout_keys))

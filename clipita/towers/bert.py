"""BERT text tower: token ids (B, L) -> (B, D) pooled features.

Source: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers" (arXiv:1810.04805): learned positions
counted from 0, layer norm after each residual sum, exact GELU (by erf; the tanh form is 2e-4 off).
"""

# JAX and Flax leave parts of their interfaces without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import jax
from flax import nnx

from clipita.towers.config import BertConfig


class BertLayer(nnx.Module):
    """Self-attention, then an MLP; each added to its input and normalised."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs) -> None:
        def linear(inputs: int, outputs: int) -> nnx.Linear:
            return nnx.Linear(inputs, outputs, kernel_init=nnx.initializers.normal(0.02), rngs=rngs)

        width = config.width
        self.heads = config.heads
        self.query, self.key, self.value, self.output = (linear(width, width) for _ in range(4))
        self.attention_norm = nnx.LayerNorm(width, epsilon=config.epsilon, rngs=rngs)
        self.mlp_in = linear(width, config.mlp_width)
        self.mlp_out = linear(config.mlp_width, width)
        self.mlp_norm = nnx.LayerNorm(width, epsilon=config.epsilon, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:  # (B, L, D), bool (B, 1, 1, L) -> (B, L, D)
        q, k, v = (
            project(x).reshape(*x.shape[:2], self.heads, -1)  # (B, L, heads, D / heads)
            for project in (self.query, self.key, self.value)
        )
        attended = jax.nn.dot_product_attention(q, k, v, mask=mask)
        x = self.attention_norm(x + self.output(attended.reshape(x.shape)))
        return self.mlp_norm(x + self.mlp_out(jax.nn.gelu(self.mlp_in(x), approximate=False)))


class Bert(nnx.Module):
    """The text tower; token types are all 0."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs) -> None:
        def embed(rows: int) -> nnx.Embed:
            return nnx.Embed(rows, config.width, embedding_init=nnx.initializers.normal(0.02), rngs=rngs)

        self.pooling = config.pooling
        self.word = embed(config.vocabulary)
        self.position = embed(config.positions)
        self.token_type = embed(config.token_types)
        self.norm = nnx.LayerNorm(config.width, epsilon=config.epsilon, rngs=rngs)
        self.layers = nnx.List([BertLayer(config, rngs=rngs) for _ in range(config.layers)])

    def __call__(self, input_ids: jax.Array, attention_mask: jax.Array) -> jax.Array:
        """Pools the last layer.

        Args:
            input_ids: (B, L) integers, L no more than the positions.
            attention_mask: (B, L) integers, 1 where a token is and 0 where padding is; at least one 1 in each row.

        Returns:
            (B, D) float: the mean over the tokens, or the first token, as the config says.
        """
        positions = self.position.embedding[: input_ids.shape[1]] + self.token_type.embedding[0][None]
        x = self.norm(self.word(input_ids) + positions[None])
        is_token = attention_mask.astype(bool)
        for layer in self.layers:
            x = layer(x, is_token[:, None, None])
        if self.pooling == "cls":
            return x[:, 0]
        weights = is_token.astype(x.dtype)[..., None]  # (B, L, 1)
        return (x * weights).sum(1) / weights.sum(1)

"""Define the BERT text tower, from token ids (B, L) to pooled features (B, D).

Source: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers" (arXiv:1810.04805): learned positions
counted from 0, layer norm after each residual sum, exact GELU (by erf; the tanh form is 2e-4 off).
"""

# JAX and Flax leave parts of their interfaces without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from typing import Literal, assert_never

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from clipita.towers.config import BertConfig
from clipita.towers.transformer import ALL, FIRST, TransformerLayer, dropped, embed, folded, linear


class Bert(nnx.Module):
    """A BERT that reads texts; all token types are 0."""

    def __init__(self, config: BertConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs) -> None:
        width = config.width
        self.pooling: Literal["mean", "cls", "pooler"] = config.pooling
        self.word = embed(config.vocabulary, width, rngs)
        self.position = embed(config.positions, width, rngs)
        self.token_type = embed(config.token_types, width, rngs) if config.token_types else None
        self.norm = nnx.LayerNorm(width, epsilon=config.epsilon, rngs=rngs)
        self.dropout = nnx.Dropout(0.0)
        self.layers = nnx.List([TransformerLayer(config, dtype=dtype, rngs=rngs) for _ in range(config.layers)])
        self.pooler = linear(width, width, rngs) if config.pooling == "pooler" else None

    def __call__(
        self, input_ids: jax.Array, attention_mask: jax.Array, dropout_keys: jax.Array | None = None
    ) -> jax.Array:
        """Compute the pooled features of texts.

        Args:
            input_ids: (B, L) integers, L at most the number of positions.
            attention_mask: (B, L) integers, 1 for a token and 0 for padding; at least one 1 in each row.
            dropout_keys: (B,) PRNG keys for dropout, as in `TransformerLayer`.

        Returns:
            (B, D) float: the mean over the tokens, or from the first token, as the config says.
        """
        positions = self.position.embedding[: input_ids.shape[1]]
        if self.token_type is not None:
            positions = positions + self.token_type.embedding[0][None]
        x = dropped(self.dropout, self.norm(self.word(input_ids) + positions[None]), folded(dropout_keys, 0))
        is_token = attention_mask.astype(bool)
        for index, layer in enumerate(self.layers):
            is_last = index == len(self.layers) - 1
            kept = FIRST if is_last and self.pooling != "mean" else ALL
            x = layer(x, is_token[:, None, None], kept=kept, dropout_keys=folded(dropout_keys, 1 + index))
        match self.pooling:
            case "mean":
                weights = is_token.astype(x.dtype)[..., None]  # (B, L, 1)
                return (x * weights).sum(1) / weights.sum(1)
            case "cls":
                return x[:, 0]
            case "pooler":
                assert self.pooler is not None
                return jnp.tanh(self.pooler(x[:, 0]))
            case _:
                assert_never(self.pooling)

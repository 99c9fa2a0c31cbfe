"""Define the text tower of CLIP's family, from token ids (B, L) to pooled features (B, D).

Its layer norms are before attention and MLP.

Sources: Radford et al. (arXiv:2103.00020) for CLIP, causal and read at the end token; Zhai et al. (arXiv:2303.15343)
for SigLIP, which sees padding and is read at the last position; Fan et al. (arXiv:2010.11125) for M2M100's encoder.
"""

# JAX and Flax leave parts of their interfaces without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from typing import assert_never

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from clipita.towers.config import ClipTextConfig
from clipita.towers.transformer import ALL, FIRST, LAST, TransformerLayer, dropped, embed, folded


class ClipText(nnx.Module):
    """A text tower of CLIP's family."""

    def __init__(self, config: ClipTextConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs) -> None:
        self.config = config
        self.word = embed(config.vocabulary, config.width, rngs)
        self.position = embed(config.positions, config.width, rngs)
        self.layers = nnx.List([TransformerLayer(config, dtype=dtype, rngs=rngs) for _ in range(config.layers)])
        self.norm = nnx.LayerNorm(config.width, epsilon=config.epsilon, rngs=rngs)
        self.dropout = nnx.Dropout(0.0)

    def __call__(
        self, input_ids: jax.Array, attention_mask: jax.Array, dropout_keys: jax.Array | None = None
    ) -> jax.Array:
        """Compute the pooled features of texts.

        Args:
            input_ids: (B, L) integers, L at most the number of positions.
            attention_mask: (B, L) integers, 1 for tokens, then 0 for padding. Causal towers do not need it, since
                padding comes last; those with full attention see padding.
            dropout_keys: (B,) PRNG keys for dropout, as in `TransformerLayer`.

        Returns:
            (B, D) float: the normalized token that `config.pooling` names.
        """
        attention, pooling = self.config.attention, self.config.pooling
        x = self.word(input_ids) + self.position.embedding[: input_ids.shape[1]][None]
        x = dropped(self.dropout, x, folded(dropout_keys, 0))
        mask = attention_mask.astype(bool)[:, None, None] if attention == "masked" else None
        # If the pooled token's place differs from row to row, or it sees only some tokens, the last layer is whole.
        pooled = {"cls": FIRST, "last": LAST}.get(pooling, ALL) if attention != "causal" else ALL
        for index, layer in enumerate(self.layers):
            is_last = index == len(self.layers) - 1
            kept = pooled if is_last else ALL
            x = layer(x, mask, causal=attention == "causal", kept=kept, dropout_keys=folded(dropout_keys, 1 + index))
        match pooling:
            case "cls":
                x = x[:, 0]
            case "last":
                x = x[:, -1]
            case "eos" | "highest":
                marks = input_ids if self.config.eos_token is None else input_ids == self.config.eos_token
                x = jnp.take_along_axis(x, jnp.argmax(marks, axis=1)[:, None, None], axis=1)[:, 0]
            case _:
                assert_never(pooling)
        return self.norm(x)

"""Define the vision transformer image tower, from normalized pixels (B, S, S, 3) to pooled features (B, D).

Sources: Dosovitskiy et al. (arXiv:2010.11929); Radford et al. (arXiv:2103.00020) for CLIP's norm before the first
layer; Zhai et al. (arXiv:2106.04560) for the pooling by attention that SigLIP has.
"""

# JAX and Flax leave parts of their interfaces without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from typing import Literal, assert_never

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from clipita.towers.config import VitConfig
from clipita.towers.transformer import ALL, FIRST, AttentionMlp, TransformerLayer, embed, linear


class AttentionPool(AttentionMlp):
    """Pooling by one learned query that attends to all tokens, with an MLP behind it: (B, N, D) -> (B, D)."""

    def __init__(self, config: VitConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs) -> None:
        super().__init__(config, dtype=dtype, rngs=rngs)
        self.probe = embed(1, config.width, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Pool the tokens: (B, N, D) -> (B, D)."""
        probe = jnp.broadcast_to(self.probe.embedding[...][None], (x.shape[0], 1, x.shape[2]))
        y = self.attend(probe, x, None, causal=False)
        return (y + self.mlp(self.mlp_norm(y)))[:, 0]

    def each_alone(self, x: jax.Array) -> jax.Array:
        """Compute for each token (B, N, D) what the pool would give if there were no other; (B, N, D)."""
        y = self.attend_to_itself(x)
        return y + self.mlp(self.mlp_norm(y))


class Vit(nnx.Module):
    """A vision transformer for images of one size."""

    def __init__(self, config: VitConfig, image_size: int, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs) -> None:
        width, patch = config.width, (config.patch, config.patch)
        norm = nnx.LayerNorm
        self.pooling: Literal["cls", "pooler", "mean", "map"] = config.pooling
        self.patch = nnx.Conv(
            3, width, patch, strides=patch, padding="VALID", use_bias=config.patch_bias,
            kernel_init=nnx.initializers.normal(0.02), dtype=dtype, rngs=rngs,
        )  # fmt: skip
        self.class_token = embed(1, width, rngs) if config.class_token else None
        self.position = embed(config.positions(image_size), width, rngs)
        self.embedding_norm = norm(width, epsilon=config.epsilon, rngs=rngs) if config.embedding_norm else None
        self.layers = nnx.List([TransformerLayer(config, dtype=dtype, rngs=rngs) for _ in range(config.layers)])
        self.norm = norm(width, epsilon=config.epsilon, rngs=rngs)
        self.pooler = linear(width, width, rngs) if config.pooling == "pooler" else None
        self.head = AttentionPool(config, dtype=dtype, rngs=rngs) if config.pooling == "map" else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Compute pooled features (B, D) of normalized pixels (B, S, S, 3), in their float dtype."""
        x = self._tokens(x)
        kept = FIRST if self.pooling in ("cls", "pooler") else ALL
        for index, layer in enumerate(self.layers):
            x = layer(x, kept=kept if index == len(self.layers) - 1 else ALL)
        x = self.norm(x)
        match self.pooling:
            case "map":
                assert self.head is not None
                return self.head(x)
            case "mean":
                return self._patches(x).mean(axis=1)
            case "cls":
                return x[:, 0]
            case "pooler":
                assert self.pooler is not None
                return jnp.tanh(self.pooler(x[:, 0]))
            case _:
                assert_never(self.pooling)

    def positions(self, x: jax.Array) -> jax.Array:
        """Compute the features of all patches (B, N, D), each as if it were alone where the tower pools."""
        x = self._tokens(x)
        for index, layer in enumerate(self.layers):
            is_last = index == len(self.layers) - 1
            x = layer.each_alone(x) if is_last and self.pooling in ("cls", "pooler") else layer(x)
        x = self._patches(self.norm(x))
        match self.pooling:
            case "map":
                assert self.head is not None
                return self.head.each_alone(x)
            case "mean" | "cls":
                return x
            case "pooler":
                assert self.pooler is not None
                return jnp.tanh(self.pooler(x))
            case _:
                assert_never(self.pooling)

    def _patches(self, x: jax.Array) -> jax.Array:
        return x if self.class_token is None else x[:, 1:]

    def _tokens(self, x: jax.Array) -> jax.Array:
        x = self.patch(x).astype(x.dtype)
        x = x.reshape(x.shape[0], -1, x.shape[-1])  # (B, N, D), row by row
        if self.class_token is not None:
            first = jnp.broadcast_to(self.class_token.embedding[...][None], (x.shape[0], 1, x.shape[2]))
            x = jnp.concatenate([first, x], axis=1)
        x = x + self.position.embedding[...][None]
        return x if self.embedding_norm is None else self.embedding_norm(x)

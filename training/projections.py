"""Locked-image, locked-text training: the projections alone, on cached features of both towers."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from clipita.convert.quantize import Array
from clipita.towers.config import DualConfig
from clipita.towers.dual import Projection, unit_norm
from training.losses import softmax_contrastive
from training.tail import ImageTail


class Standardise(nnx.Module):
    """Features minus their mean, over one standard deviation for all: what a projection sees while it is trained.

    `fold` gives the projection that does the same to raw features.
    """

    def __init__(self, mean: Array, std: float) -> None:
        self.mean = nnx.BatchStat(jnp.asarray(mean, jnp.float32))
        self.std = nnx.BatchStat(jnp.float32(std))

    def __call__(self, x: jax.Array) -> jax.Array:  # (B, D) -> (B, D)
        return (x - self.mean[...][None]) / self.std[...]

    def fold(self, projection: Mapping[str, Array]) -> dict[str, Array]:
        """Its weights for raw features: matrices that meet them are divided by std, biases moved by the mean."""
        mean, std = np.asarray(self.mean[...]), float(self.std[...])
        folded = {name: np.array(values) for name, values in projection.items()}
        for layer in ("linear", "mlp_in"):
            if f"{layer}.kernel" in projection:
                kernel = projection[f"{layer}.kernel"] / std
                folded[f"{layer}.kernel"] = kernel
                folded[f"{layer}.bias"] = projection[f"{layer}.bias"] - mean @ kernel
        return folded


class Projections(nnx.Module):
    """Both projections of a `DualEncoder`, under the same names, on standardised features.

    With a tail, what is given of images may also be maps (B, H, W, C), of which the tail makes features.
    """

    def __init__(
        self,
        config: DualConfig,
        image: Standardise,
        text: Standardise,
        tail: ImageTail | None = None,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        self.image_standardise, self.text_standardise, self.image_tail = image, text, tail
        self.image_projection = Projection(config.image.features, config.embed_dim, config.image_projection, rngs=rngs)
        self.text_projection = Projection(config.text.features, config.embed_dim, config.text_projection, rngs=rngs)

    def image_features(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) -> pooled features (B, D); what is pooled already stays as it is."""
        return x.astype(jnp.float32) if self.image_tail is None or x.ndim == 2 else self.image_tail(x)

    def project_image(self, features: jax.Array, key: jax.Array | None = None, dropout: float = 0.0) -> jax.Array:
        """Raw pooled features (B, D) -> embeddings (B, E); with a key, a share of the features is dropped."""
        x = self.image_standardise(features)
        if key is not None and dropout:
            x = jnp.where(jax.random.bernoulli(key, 1 - dropout, x.shape), x / (1 - dropout), 0.0)
        return unit_norm(self.image_projection(x))

    def project_text(self, features: jax.Array, key: jax.Array | None = None, noise: float = 0.0) -> jax.Array:
        """Raw pooled features (B, D) -> embeddings (B, E); with a key, Gaussian noise of `noise` std is added.

        A phrase then stands for its neighbourhood, and one that was never seen falls into it more often.
        """
        x = self.text_standardise(features)
        if key is not None and noise:
            x += noise * jax.random.normal(key, x.shape)
        return unit_norm(self.text_projection(x))


def decorrelate(image: Mapping[str, Array], text: Mapping[str, Array], outputs: Array, power: float) -> None:
    """Moves the spread of image embeddings over to the texts, in place.

    With m and S the mean and covariance of the image projection's outputs, images become S^(-power/2) (y - m) and texts
    S^(power/2) y. Products keep their order, but the norm that texts are then divided by is, at power 1, the standard
    deviation of their product with photographs. A phrase that was never trained on points between the directions that
    labels were driven to, where photographs vary little; its products are small, and dividing by that spread lets it
    compete with labels.

    Args:
        image, text: weights of the two projections, for raw features, each ending in a linear map with a bias.
        outputs: (N, E) of the image projection before its norm, for photographs of all kinds.
        power: 0 changes nothing, 1 makes image embeddings as wide in every direction.
    """
    mean = outputs.mean(0)
    variances, directions = np.linalg.eigh(np.cov((outputs - mean).T))
    variances = np.maximum(variances, variances.max() * 1e-4)
    scale = variances ** (power / 2)
    images, texts = (directions / scale) @ directions.T, (directions * scale) @ directions.T
    for weights, matrix, shift in ((image, images, mean), (text, texts, np.zeros_like(mean))):
        bias = "mlp_out.bias" if "mlp_out.bias" in weights else "linear.bias"
        weights[bias][...] -= shift
        for name in ("linear.kernel", "linear.bias", "mlp_out.kernel", "mlp_out.bias"):
            if name in weights:
                weights[name][...] = weights[name] @ matrix


def project(weights: Mapping[str, Array], features: Array) -> Array:
    """Outputs (N, E) of a projection before its norm, for raw features (N, D), in NumPy."""
    x = features.astype(np.float32)
    y = x @ weights["linear.kernel"] + weights["linear.bias"]
    if "mlp_in.kernel" in weights:
        hidden = np.asarray(jax.nn.gelu(x @ weights["mlp_in.kernel"] + weights["mlp_in.bias"], approximate=False))
        y += hidden @ weights["mlp_out.kernel"] + weights["mlp_out.bias"]
    return y


def unit_rows(x: Array) -> Array:
    """Rows (N, E) of length 1."""
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def projection_loss(
    *, logit_scale: float, text_noise: float, image_dropout: float, word_weight: float, caption_weight: float
) -> Any:
    """The loss of `training.data.batches.ConceptBatches`: concepts, plus words and captions where a batch has them."""

    def loss_fn(
        model: Projections, batch: Mapping[str, jax.Array], key: jax.Array | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        keys = [None] * 6 if key is None else list(jax.random.split(key, 6))
        images = model.image_features(batch["images"])
        if "imagined" in batch:
            images = jnp.concatenate([images, batch["imagined"]])
        loss = concepts = softmax_contrastive(
            model.project_image(images, keys[0], image_dropout),
            model.project_text(batch["text_features"], keys[1], text_noise),
            logit_scale=logit_scale,
            positive=batch["positive"],
            known=batch["known"],
        )
        metrics = {"concept_loss": concepts}
        if "word_left" in batch:
            metrics["word_loss"] = softmax_contrastive(
                model.project_text(batch["word_left"], keys[2], text_noise),
                model.project_text(batch["word_right"], keys[3], text_noise),
                logit_scale=logit_scale,
            )
            loss += word_weight * metrics["word_loss"]
        if "caption_left" in batch:
            metrics["caption_loss"] = softmax_contrastive(
                model.project_image(model.image_features(batch["caption_left"]), keys[4], image_dropout),
                model.project_text(batch["caption_right"], keys[5], text_noise),
                logit_scale=logit_scale,
            )
            loss += caption_weight * metrics["caption_loss"]
        return loss, metrics

    return loss_fn

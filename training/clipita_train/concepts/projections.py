"""Train projections on cached features of locked towers, and merge several pairs of projections into one."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from scipy.linalg import block_diag

from clipita.system.arrays import Array
from clipita.towers.config import DualConfig
from clipita.towers.dual import Projection, unit_norm
from clipita_train.concepts.tail import ImageTail
from clipita_train.losses.contrastive import softmax_contrastive

# Features of multilingual-e5-small have cosines of 0.75 to 0.9 between sentences that have nothing in common.
PARAPHRASE_COSINE = 0.97


class Standardize(nnx.Module):
    """Subtract the mean from features, and divide all of them by one standard deviation.

    A projection sees such features while it is trained; `fold` makes it fit for raw features.
    """

    def __init__(self, mean: Array, std: float) -> None:
        self.mean = nnx.BatchStat(jnp.asarray(mean, jnp.float32))
        self.std = nnx.BatchStat(jnp.float32(std))

    def __call__(self, x: jax.Array) -> jax.Array:  # (B, D) -> (B, D)
        """Standardize features (B, D)."""
        return (x - self.mean[...][None]) / self.std[...]

    def fold(self, projection: Mapping[str, Array]) -> dict[str, Array]:
        """Return the weights of a projection for raw features.

        Kernels of the first layers are divided by the standard deviation, and their biases moved by the mean.
        """
        mean, std = np.asarray(self.mean[...]), float(self.std[...])
        folded = {name: np.array(values) for name, values in projection.items()}
        for layer in ("linear", "mlp_in"):
            if f"{layer}.kernel" in projection:
                kernel = projection[f"{layer}.kernel"] / std
                folded[f"{layer}.kernel"] = kernel
                folded[f"{layer}.bias"] = projection[f"{layer}.bias"] - mean @ kernel
        return folded


class Projections(nnx.Module):
    """Both projections of a `DualEncoder`, under the same names, on standardized features.

    With a tail, images may also be given as maps (B, H, W, C), from which the tail computes features.
    """

    def __init__(
        self,
        config: DualConfig,
        image: Standardize,
        text: Standardize,
        tail: ImageTail | None = None,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        self.image_standardise, self.text_standardise, self.image_tail = image, text, tail
        self.image_projection = Projection(config.image.features, config.embed_dim, config.image_projection, rngs=rngs)
        self.text_projection = Projection(config.text.features, config.embed_dim, config.text_projection, rngs=rngs)

    def image_features(self, x: jax.Array) -> jax.Array:
        """Compute pooled features (B, D) from maps (B, H, W, C); pooled features are returned as they are."""
        return x.astype(jnp.float32) if self.image_tail is None or x.ndim == 2 else self.image_tail(x)

    def project_image(self, features: jax.Array, key: jax.Array | None = None, dropout: float = 0.0) -> jax.Array:
        """Project raw pooled features (B, D) to embeddings (B, E); with a key, some features are dropped at random."""
        x = self.image_standardise(features)
        if key is not None and dropout:
            x = jnp.where(jax.random.bernoulli(key, 1 - dropout, x.shape), x / (1 - dropout), 0.0)
        return unit_norm(self.image_projection(x))

    def project_text(self, features: jax.Array, key: jax.Array | None = None, noise: float = 0.0) -> jax.Array:
        """Project raw pooled features (B, D) to embeddings (B, E); with a key, Gaussian noise is added first.

        Noise of standard deviation `noise` makes a phrase stand for its neighborhood, so that phrases that were never
        seen fall into it more often.
        """
        x = self.text_standardise(features)
        if key is not None and noise:
            x += noise * jax.random.normal(key, x.shape)
        return unit_norm(self.text_projection(x))


def merge(
    members: Sequence[tuple[Mapping[str, Array], Mapping[str, Array]]],
    photographs: Array,
    labels: Array,
    *,
    width: int,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Merge several pairs of projections into one pair of `width` dimensions.

    The cosine that results is close to the sum of the members' products, each divided by the mean norms of its two
    outputs. This leaves free a matrix that images are multiplied by and texts by its inverse. It decides the norms that
    cosines divide by, and is chosen as in balanced truncation (Moore 1981). Let X and T be the second moments of images
    and of texts, and U s V' the singular value decomposition of X^(1/2) T^(1/2). Images are multiplied by X^(-1/2) U
    s^(1/2) and texts by T^(-1/2) V s^(1/2); along each direction both then have the second moment s. Without this,
    photographs vary little along the directions between the trained labels. A phrase that was not trained on points
    along these, and cannot compete with labels.

    Args:
        members: The image projection and the text projection of each member, for raw features, ending in a linear map
            with a bias.
        photographs: (N, D) raw features of photographs of all kinds.
        labels: (M, C) raw features of one label for each of many concepts.
        width: Dimensions of the embeddings.

    Returns:
        The image projection and the text projection.
    """
    images, texts = [], []
    for image, text in members:
        shown, named = project(image, photographs), project(text, labels)
        mean = shown.mean(0)
        images.append(_then(image, np.eye(len(mean)) / np.linalg.norm(shown - mean, axis=1).mean(), shift=-mean))
        texts.append(_then(text, np.eye(len(mean)) / np.linalg.norm(named, axis=1).mean()))
    image, text = _side_by_side(images), _side_by_side(texts)
    image_root, image_inverse = _roots(project(image, photographs))
    text_root, text_inverse = _roots(project(text, labels))
    u, s, vt = np.linalg.svd(image_root @ text_root)
    scale = np.sqrt(s[:width])
    return (
        _then(image, image_inverse @ u[:, :width] * scale),
        _then(text, text_inverse @ vt[:width].T * scale),
    )


def _then(weights: Mapping[str, Array], matrix: Array, shift: Array | float = 0.0) -> dict[str, Array]:
    """Return the projection with outputs (y + shift) @ matrix, where y are the outputs of `weights`."""
    changed = dict(weights)
    bias = "mlp_out.bias" if "mlp_out.bias" in weights else "linear.bias"
    changed[bias] = weights[bias] + shift
    for name in ("linear.kernel", "linear.bias", "mlp_out.kernel", "mlp_out.bias"):
        if name in weights:
            changed[name] = (changed[name] @ matrix).astype(np.float32)
    return changed


def _side_by_side(projections: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Return the projection whose outputs are those of all projections, concatenated."""
    joined: dict[str, Array] = {}
    for name in projections[0]:
        parts = [each[name] for each in projections]
        joined[name] = np.asarray(block_diag(*parts)) if name == "mlp_out.kernel" else np.concatenate(parts, axis=-1)
    return joined


def _roots(rows: Array) -> tuple[Array, Array]:
    """Return the square root of the second moments of rows (N, E), and its inverse.

    Directions that are hardly used count as somewhat used, so that the inverse stays bounded.
    """
    values, vectors = np.linalg.eigh(rows.T.astype(np.float64) @ rows / len(rows))
    roots = np.sqrt(np.maximum(values, values.max() * 1e-7))
    return (vectors * roots) @ vectors.T, (vectors / roots) @ vectors.T


def project(weights: Mapping[str, Array], features: Array) -> Array:
    """Compute the outputs (N, E) of a projection, before normalization, for raw features (N, D), in NumPy."""
    x = features.astype(np.float32)
    y = x @ weights["linear.kernel"] + weights["linear.bias"]
    if "mlp_in.kernel" in weights:
        hidden = np.asarray(jax.nn.gelu(x @ weights["mlp_in.kernel"] + weights["mlp_in.bias"], approximate=False))
        y += hidden @ weights["mlp_out.kernel"] + weights["mlp_out.bias"]
    return y


def unit_rows(x: Array) -> Array:
    """Scale the rows (N, E) to length 1."""
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _paraphrases(texts: jax.Array) -> jax.Array:
    """Return which pairs of texts (B, D) say nearly the same, (B, B) bool; no text is a paraphrase of itself.

    Two photographs of a collection often have the same caption, and neither's is then wrong for the other.
    """
    directions = unit_norm(texts)
    return (directions @ directions.T > PARAPHRASE_COSINE) & ~jnp.eye(len(texts), dtype=bool)


def projection_loss(
    *,
    logit_scale: float,
    text_noise: float,
    text_drift: float,
    image_dropout: float,
    word_weight: float,
    caption_weight: float,
) -> Any:
    """Return the loss for batches of `ConceptBatches`: of concepts, and of words and captions where a batch has them.

    With `text_drift`, the features of a text are moved in training by a random multiple of the difference between two
    words of one meaning. These are directions in which a phrase may move without meaning something else.

    Args:
        logit_scale: The multiplier of the cosines.
        text_noise: Standard deviation of the noise on text features.
        text_drift: Standard deviation of the random multiple.
        image_dropout: Share of image features that are dropped.
        word_weight: Weight of the loss of words.
        caption_weight: Weight of the loss of captions.
    """

    def loss_fn(
        model: Projections, batch: Mapping[str, jax.Array], key: jax.Array | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        texts = batch["text_features"]
        if key is not None and text_drift and "word_left" in batch:
            pick, move, key = jax.random.split(key, 3)
            differences = batch["word_left"] - batch["word_right"]
            drawn = differences[jax.random.randint(pick, (len(texts),), 0, len(differences))]
            texts += text_drift * jax.random.normal(move, (len(texts), 1)) * drawn
        keys = [None] * 6 if key is None else list(jax.random.split(key, 6))
        images = model.image_features(batch["images"])
        if "imagined" in batch:
            images = jnp.concatenate([images, batch["imagined"]])
        loss = concepts = softmax_contrastive(
            model.project_image(images, keys[0], image_dropout),
            model.project_text(texts, keys[1], text_noise),
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
                known=~_paraphrases(batch["caption_right"]),
            )
            loss += caption_weight * metrics["caption_loss"]
        return loss, metrics

    return loss_fn

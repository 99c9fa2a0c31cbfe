"""Build the model of a recipe for whole towers: pretrained towers, new projections, and the loss between pairs."""

from typing import Any, Literal, assert_never

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from clipita.system.arrays import Array
from clipita.towers.config import DualConfig
from clipita.towers.dual import DualEncoder, Projection
from clipita.towers.efficientnet import InvertedBottleneck
from clipita.towers.parameters import parameter_table, set_parameters
from clipita.towers.transformer import TransformerLayer
from clipita_train.augment.apply import augment, sample_keys
from clipita_train.augment.presets import PRESETS
from clipita_train.engine.gradient_cache import cached_loss
from clipita_train.engine.step import Batch, LossFn, Metrics
from clipita_train.losses.configured import PairLoss
from clipita_train.pairs.recipe import PairRecipe
from clipita_train.towers.backbones import PretrainedImageTower, PretrainedTextTower

LOSS = "loss"  # name of the part of the model that a dual encoder does not have


def dual_config(recipe: PairRecipe, image: PretrainedImageTower, text: PretrainedTextTower) -> DualConfig:
    """Return the architecture: both towers, and the recipe's projections."""
    return DualConfig(
        image=image.config,
        text=text.config,
        preprocessing=image.preprocessing,
        embed_dim=recipe.embed_dim,
        image_projection=recipe.image_projection,
        text_projection=recipe.text_projection,
    )


def build_model(recipe: PairRecipe, image: PretrainedImageTower, text: PretrainedTextTower, mesh: Mesh) -> DualEncoder:
    """Build a `DualEncoder` with a `PairLoss` as its `loss`; projections are initialized by the seed of the run.

    Parameters are called "image/...", "text/...", "image_projection/..." and "text_projection/..."; learned parts of
    the loss are "loss/log_scale" and "loss/bias".

    Args:
        recipe: The recipe.
        image: The pretrained image tower.
        text: The pretrained text tower.
        mesh: The devices.
    """
    config = dual_config(recipe, image, text)
    table = {f"image.{name}": values for name, values in image.weights.items()}
    table |= {f"text.{name}": values for name, values in text.weights.items()}
    rngs = nnx.Rngs(recipe.train.seed)
    for name, features, projection in (
        ("image_projection", config.image.features, config.image_projection),
        ("text_projection", config.text.features, config.text_projection),
    ):
        first = parameter_table(Projection(features, config.embed_dim, projection, rngs=rngs))
        table |= {f"{name}.{leaf}": values for leaf, values in first.items()}
    folded = not any(name.endswith(".mean") for name in image.weights)
    # Only the shapes of the towers are computed here; their initial weights would be overwritten.
    dtype = jnp.dtype(recipe.dtype)
    model = nnx.eval_shape(lambda: DualEncoder(config, folded=folded, dtype=dtype, rngs=nnx.Rngs(0)))
    set_parameters(model, table)
    for _, part in nnx.iter_modules(model):
        if isinstance(part, (TransformerLayer, InvertedBottleneck)):
            part.rematerialize = recipe.rematerialise
    model.text.set_attributes(nnx.Dropout, rate=recipe.text.dropout)
    setattr(model, LOSS, PairLoss(recipe.loss, mesh if _needs_mesh(recipe.loss.kind, mesh.size) else None))
    return model


def _needs_mesh(kind: Literal["softmax", "per_device", "sigmoid"], devices: int) -> bool:
    match kind:
        case "softmax":
            return False
        case "per_device":
            return True
        case "sigmoid":
            return devices > 1
        case _:
            assert_never(kind)


def dual_table(model: DualEncoder) -> dict[str, Array]:
    """Return the weights of the dual encoder, as `clipita.convert.export.write_dual_bundle` takes them."""
    return {name: values for name, values in parameter_table(model).items() if not name.startswith(f"{LOSS}.")}


def pair_loss(recipe: PairRecipe, image_size: int) -> LossFn:
    """Return the loss function of a recipe, for batches of `clipita_train.pairs.batches`.

    Photographs are augmented before the towers run in chunks, since chunks run twice. Dropout in a caption depends on
    the key of the step and on the row, but not on its place in the batch, nor on chunks, devices and processes.

    The metrics are the mean cosine of right pairs and the logit scale. In validation there is "recall" too: the share
    of photographs for which no caption of the batch has a higher cosine than their own. A caption that occurs twice
    does not count as a rival of itself.
    """
    config, seed = PRESETS[recipe.augmentation], recipe.train.seed
    through_towers = cached_loss(_embed, _compare, chunks=recipe.chunks)

    def loss_fn(model: nnx.Module, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, Metrics]:
        if key is not None and "pixels" in batch and recipe.augmentation != "none":
            flips = batch.get("may_flip")
            pixels = augment(
                batch["pixels"],
                batch["number"],
                batch["view"],
                config=config,
                size=image_size,
                seed=seed,
                may_flip=flips,
            )
            batch = {**batch, "pixels": pixels}
        if key is not None and recipe.text.dropout and "text_features" not in batch:
            batch = {**batch, "text_keys": sample_keys(key, batch["number"], batch["view"])}
        return through_towers(model, batch, key)

    return loss_fn


def _embed(model: Any, batch: Batch, _: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Embed photographs and captions (B, E); where a batch has features of a locked tower, only the projection runs."""
    image = batch["image_features"] if "image_features" in batch else model.image_features(batch["pixels"])
    if "text_features" in batch:
        text = batch["text_features"]
    else:
        text = model.text_features(batch["input_ids"], batch["attention_mask"], batch.get("text_keys"))
    return model.project_image(image), model.project_text(text)


def _compare(model: Any, embeddings: tuple[jax.Array, jax.Array], batch: Batch) -> tuple[jax.Array, Metrics]:
    image, text = (embedding.astype(jnp.float32) for embedding in embeddings)
    mask = batch.get("mask")
    loss = model.loss(image, text, mask=mask)
    cosines = jnp.matmul(image, text.T, precision=jax.lax.Precision.HIGHEST) if mask is not None else None
    counts = jnp.ones(len(image)) if mask is None else mask.astype(jnp.float32)
    own = (image * text).sum(1) if cosines is None else jnp.diagonal(cosines)

    def mean(values: jax.Array) -> jax.Array:
        return (values * counts).sum() / jnp.maximum(counts.sum(), 1.0)

    metrics = {"cosine": mean(own), "logit_scale": model.loss.logit_scale}
    if mask is not None and cosines is not None:
        best = jnp.where(mask[None, :], cosines, -2.0).max(1)
        metrics["recall"] = mean((own >= best).astype(jnp.float32))
    return loss, metrics

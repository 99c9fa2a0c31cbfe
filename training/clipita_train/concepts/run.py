"""Train a recipe: the end of the image tower, then the projections, then the scale of the cosines."""

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from clipita.convert.weights.quantize import dequantize, quantize
from clipita.system.arrays import Array
from clipita.towers.config import DualConfig, ProjectionConfig
from clipita.towers.parameters import parameter_table
from clipita_train.concepts.batches import ConceptBatches, validation_batches
from clipita_train.concepts.features import Groups
from clipita_train.concepts.material import HeldOutSource, Material, assemble, moments
from clipita_train.concepts.projections import Projections, Standardize, merge, project, projection_loss, unit_rows
from clipita_train.concepts.recipe import Corpus, ProjectionsRecipe, Recipe, TailRecipe
from clipita_train.concepts.tail import learns, tower_weights
from clipita_train.data.concepts import load_ontology
from clipita_train.engine.config import StageConfig
from clipita_train.engine.loop import fit
from clipita_train.engine.mesh import OwnRows


@dataclass(frozen=True)
class Trained:
    """The result of `train`.

    Attributes:
        weights: By their names in a bundle: both projections, for raw features, and the image tower if it was changed.
        logit_scale: The multiplier of the cosines.
    """

    weights: dict[str, Array]
    logit_scale: float


def train(
    corpus: Corpus,
    *,
    tower: Mapping[str, Array] | None = None,
    tail_from: Mapping[str, Array] | None = None,
    left_out: HeldOutSource | None = None,
    resume: bool = False,
) -> Trained:
    """Train the end of the image tower, then pairs of projections on its features; merge them, and fit the scale.

    Args:
        corpus: What to train on.
        tower: An image tower whose end has been trained, as bundles store it; then only projections are trained.
        tail_from: An image tower, as bundles store it, whose end is trained on instead of the pretrained one.
        left_out: A source to leave out.
        resume: Go on with the run that is in the work folder.

    Raises:
        ValueError: `left_out` is given with a tower, which may have been trained on that source; or both towers are
            given, or `tail_from` for a recipe that trains no tail.
    """
    recipe, folder = corpus.recipe, run_folder(corpus.work, left_out)
    if left_out is not None and not (tower is None and tail_from is None):
        raise ValueError(
            f"the given image tower may have been trained on {left_out.source}: "
            "leave the source out without --tower and --tail-from"
        )
    if tail_from is not None and (tower is not None or recipe.tail is None):
        raise ValueError(
            "--tail-from trains the end of an image tower on, but "
            + ("--tower keeps it as it is: give one of them" if tower is not None else "this recipe trains none")
        )
    if tail_from is not None:
        corpus = corpus.with_tower(dequantize(tail_from))
    if tower is not None:
        corpus = corpus.with_tower(tower)
    elif recipe.tail is not None:
        tower = _train_tail(corpus, recipe.tail, folder / "tail", left_out, resume)
        # Photographs of another size have maps of another size.
        same_maps = recipe.tail.image_size == recipe.image_size
        corpus = corpus.with_end(tower) if same_maps else corpus.with_tower(tower)
    members, material = [], None
    for number, member in enumerate(recipe.members):
        material = assemble(corpus, member.boosts, left_out=left_out)
        best = _fit(corpus, material, member, folder / f"projections-{number}", resume)
        image = best.image_standardise.fold(parameter_table(best.image_projection))
        text = best.text_standardise.fold(parameter_table(best.text_projection))
        members.append((image, text))
    assert material is not None  # a recipe has one member or more
    sample = np.random.default_rng(0).permutation(len(material.features.photographs.features))[:20_000]
    named, labels = _labels(material)
    image, text = merge(members, material.features.photographs.features[sample], labels, width=recipe.embed_dim)
    weights = {f"image_projection.{name}": values for name, values in image.items()}
    weights |= {f"text_projection.{name}": values for name, values in text.items()}
    images, texts = project(image, material.validation.features), project(text, labels)
    scale = _fit_scale(unit_rows(images), material.validation.concepts, unit_rows(texts), named)
    return Trained(weights | dequantize(tower or {}), scale)


def run_folder(work: Path, left_out: HeldOutSource | None) -> Path:
    """Return the folder of a run's checkpoints and metrics."""
    if left_out is None:
        return work / "run"
    return work / f"run-without-{left_out.source}{'-classes' if left_out.classes else ''}"


def _train_tail(
    corpus: Corpus, recipe: TailRecipe, folder: Path, left_out: HeldOutSource | None, resume: bool
) -> dict[str, Array]:
    """Train the end of the image tower, and return the whole tower quantized, as the bundle will store it.

    Projections are trained on the features of the quantized tower, since those are what users get.
    """
    corpus = corpus.at(recipe.image_size)
    material = assemble(corpus, recipe.projections.boosts, tail_blocks=recipe.blocks, left_out=left_out)
    best = _fit(corpus, material, recipe.projections, folder, resume)
    assert best.image_tail is not None
    tower = {**corpus.towers.image, **tower_weights(best.image_tail)}
    formats = corpus.recipe.weight_formats
    return quantize(tower, {pattern: formats[pattern] for pattern in formats if fnmatch.filter(tower, pattern)})


def _fit(corpus: Corpus, material: Material, how: ProjectionsRecipe, folder: Path, resume: bool) -> Projections:
    """Train one pair of projections, together with the tail of the image tower if the material has one."""
    recipe, seed = corpus.recipe, how.train.seed
    image, text = (
        Standardize(*moments(side.features)) for side in (material.features.photographs, material.features.phrases)
    )
    config = _member(recipe, corpus.towers.config)
    projections = Projections(config, image, text, material.tail, rngs=nnx.Rngs(seed))
    loss_fn = projection_loss(
        logit_scale=recipe.logit_scale,
        text_noise=recipe.text_noise,
        text_drift=how.text_drift,
        image_dropout=recipe.image_dropout,
        word_weight=recipe.word_weight,
        caption_weight=recipe.caption_weight,
    )

    def make_batches(stage: StageConfig, split: str) -> Any:
        batches = whole_batches(stage, split)
        return OwnRows(batches) if jax.process_count() > 1 else batches

    def whole_batches(stage: StageConfig, split: str) -> Any:
        mapped = learns(stage)
        if split == "train":
            return ConceptBatches(load_ontology(), material.features, recipe.mix, seed=seed, mapped=mapped)
        phrases = material.features.phrases
        return validation_batches(load_ontology(), material.validation, phrases, recipe.mix, mapped=mapped)

    settings = {  # a resumed run must have the same
        "image_tower": corpus.image_tower().fingerprint,
        "boosts": how.boosts,
        "text_drift": how.text_drift,
    }
    return fit(projections, how.train, loss_fn, make_batches, out_dir=folder, settings=settings, resume=resume)


def _member(recipe: Recipe, config: DualConfig) -> DualConfig:
    """Return the configuration with one member's share of the hidden units of the projections."""

    def share(projection: ProjectionConfig) -> ProjectionConfig:
        return replace(projection, hidden=projection.hidden and projection.hidden // len(recipe.members))

    return replace(
        config, image_projection=share(config.image_projection), text_projection=share(config.text_projection)
    )


def _labels(material: Material) -> tuple[Array, Array]:
    """Return the index (K,) of each concept that has a text, and raw features (K, D) of its label, the first text."""
    phrases = material.features.phrases
    texts = Groups.by_value(phrases.concepts, len(load_ontology()))
    named = np.flatnonzero(texts.counts > 0)
    return named, phrases.features[texts.first(named)]


def _fit_scale(images: Array, shown: Array, texts: Array, named: Array, labels: int = 10) -> float:
    """Return the logit scale with the lowest cross-entropy on the validation photographs.

    Each photograph is classified among its own label and labels of unrelated concepts, drawn at random.

    Args:
        images: Embeddings (N, E) of photographs, of unit norm.
        shown: The concept index (N,) of each.
        texts: Embeddings (K, E) of labels, of unit norm.
        named: The concept index (K,) of each, ascending.
        labels: How many labels a photograph is classified among.
    """
    rng = np.random.default_rng(0)
    ancestors = load_ontology().ancestors
    unrelated = ~(ancestors[np.ix_(shown, named)] | ancestors[np.ix_(named, shown)].T)
    others = np.array([rng.choice(np.flatnonzero(row), labels - 1, replace=False) for row in unrelated])
    chosen = np.concatenate([np.searchsorted(named, shown)[:, None], others], axis=1)  # (N, 10), the right one first
    cosines = np.einsum("ne,nke->nk", images, texts[chosen])

    def loss(scale: float) -> float:
        logits = scale * cosines
        return float(
            (np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1) - logits[:, 0]).mean()
        )

    return min(np.arange(5.0, 61.0), key=loss)

"""A recipe's material -> trained projections, the image tower that it changed, and the scale of their cosines."""

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from clipita.convert.quantize import Array, dequantize, quantize
from clipita.towers.config import DualConfig, ProjectionConfig
from clipita.towers.parameters import parameter_table
from clipita_train.concepts.batches import ConceptBatches, Groups, validation_batches
from clipita_train.concepts.material import LeftOut, Material, assemble, moments
from clipita_train.concepts.projections import Projections, Standardise, merge, project, projection_loss, unit_rows
from clipita_train.concepts.recipe import Corpus, ProjectionsRecipe, Recipe, TailRecipe
from clipita_train.concepts.tail import learns, tower_weights
from clipita_train.data.concepts import load_ontology
from clipita_train.engine.config import StageConfig
from clipita_train.engine.loop import fit
from clipita_train.engine.mesh import OwnRows


@dataclass(frozen=True)
class Trained:
    """What `train` makes, named as in a bundle: both projections for raw features, the weights of the image tower that
    are not those of the recipe's, and the scale of the cosines.
    """

    weights: dict[str, Array]
    logit_scale: float


def train(
    corpus: Corpus,
    *,
    tower: Mapping[str, Array] | None = None,
    left_out: LeftOut | None = None,
    resume: bool = False,
) -> Trained:
    """Trains the end of the image tower, then projections on what it gives; merges them, and fits the scale.

    Args:
        corpus: what to train on.
        tower: an image tower whose end has been trained, as bundles store it; only projections are trained then.
        left_out: what to do without.
        resume: go on with the run that is in the work folder.

    Raises:
        ValueError: `tower` with `left_out`, which it may have been trained on.
    """
    recipe, folder = corpus.recipe, run_folder(corpus.work, left_out)
    if tower is not None and left_out is not None:
        raise ValueError(
            f"the given image tower may have been trained on {left_out.source}: leave the source out without --tower"
        )
    if tower is None and recipe.tail is not None:
        tower = _train_tail(corpus, recipe.tail, folder / "tail", left_out, resume)
    if tower is not None:
        corpus = corpus.with_tower(tower)
    members, material = [], None
    for number, member in enumerate(recipe.members):
        material = assemble(corpus, member.boosts, left_out=left_out)
        best = _fit(corpus, material, member, folder / f"projections-{number}", resume)
        image = best.image_standardise.fold(parameter_table(best.image_projection))
        text = best.text_standardise.fold(parameter_table(best.text_projection))
        members.append((image, text))
    assert material is not None  # a recipe has one member or more
    sample = np.random.default_rng(0).permutation(len(material.photographs.features))[:20_000]
    named, labels = _labels(material)
    image, text = merge(members, material.photographs.features[sample], labels, width=recipe.embed_dim)
    weights = {f"image_projection.{name}": values for name, values in image.items()}
    weights |= {f"text_projection.{name}": values for name, values in text.items()}
    images, texts = project(image, material.held_back.features), project(text, labels)
    scale = _fit_scale(unit_rows(images), material.held_back.concepts, unit_rows(texts), named)
    return Trained(weights | dequantize(tower or {}), scale)


def run_folder(work: Path, left_out: LeftOut | None) -> Path:
    """Where a run keeps its checkpoints and metrics."""
    if left_out is None:
        return work / "run"
    return work / f"run-without-{left_out.source}{'-classes' if left_out.classes else ''}"


def _train_tail(
    corpus: Corpus, recipe: TailRecipe, folder: Path, left_out: LeftOut | None, resume: bool
) -> dict[str, Array]:
    """The image tower with what its end has learnt, as the bundle will store it: projections fit what that gives."""
    corpus = corpus.at(recipe.image_size)
    material = assemble(corpus, recipe.projections.boosts, tail_blocks=recipe.blocks, left_out=left_out)
    best = _fit(corpus, material, recipe.projections, folder, resume)
    assert best.image_tail is not None
    tower = {**corpus.towers.image, **tower_weights(best.image_tail)}
    formats = corpus.recipe.weight_formats
    return quantize(tower, {pattern: formats[pattern] for pattern in formats if fnmatch.filter(tower, pattern)})


def _fit(corpus: Corpus, material: Material, how: ProjectionsRecipe, folder: Path, resume: bool) -> Projections:
    """Trained projections; and the tail of the image tower, where the material has one."""
    recipe, seed = corpus.recipe, how.train.seed
    image, text = (Standardise(*moments(side.features)) for side in (material.photographs, material.phrases))
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
            return ConceptBatches(
                load_ontology(),
                material.photographs,
                material.rows,
                material.spread,
                material.phrases,
                material.words,
                material.captions,
                recipe.mix,
                seed,
                mapped=mapped,
            )
        return validation_batches(load_ontology(), material.held_back, material.phrases, recipe.mix, mapped=mapped)

    settings = {  # what a run has to have in common with the one that it resumes
        "image_tower": corpus.image_tower().fingerprint,
        "boosts": how.boosts,
        "text_drift": how.text_drift,
    }
    return fit(projections, how.train, loss_fn, make_batches, out_dir=folder, settings=settings, resume=resume)


def _member(recipe: Recipe, config: DualConfig) -> DualConfig:
    """The model with one member's share of the hidden units of its projections."""

    def share(projection: ProjectionConfig) -> ProjectionConfig:
        return replace(projection, hidden=projection.hidden and projection.hidden // len(recipe.members))

    return replace(
        config, image_projection=share(config.image_projection), text_projection=share(config.text_projection)
    )


def _labels(material: Material) -> tuple[Array, Array]:
    """Concept indices (K,) of all that have a text, and raw features (K, D) of their first texts, which are labels."""
    texts = Groups.by_value(material.phrases.concepts, len(load_ontology()))
    named = np.flatnonzero(texts.counts > 0)
    return named, material.phrases.features[texts.first(named)]


def _fit_scale(images: Array, shown: Array, texts: Array, named: Array, labels: int = 10) -> float:
    """The scale with the least negative log-likelihood on photographs held back, each among ten unrelated labels.

    Args:
        images: embeddings (N, E) of photographs, of unit norm.
        shown: the concept index (N,) of each.
        texts: embeddings (K, E) of labels, of unit norm.
        named: the concept index (K,) of each, in order.
        labels: among so many.
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

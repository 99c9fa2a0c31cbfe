"""A recipe's material -> trained projections and the scale of their cosines."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from clipita.convert.quantize import Array
from clipita.towers.parameters import parameter_table
from training.config import StageConfig
from training.data.batches import ConceptBatches, Groups, Photographs, validation_batches
from training.data.concepts import load_ontology
from training.loop import fit
from training.material import LeftOut, Material, assemble, moments
from training.mesh import OwnRows
from training.projections import Projections, Standardise, decorrelate, project, projection_loss, unit_rows
from training.recipe import Corpus
from training.tail import learns, tail_features, tower_weights


@dataclass(frozen=True)
class Trained:
    """What `train` makes, named as in a bundle: both projections for raw features, the weights of the image tower that
    it changed, and the scale of the cosines.
    """

    weights: dict[str, Array]
    logit_scale: float


def train(corpus: Corpus, *, left_out: LeftOut | None = None, resume: bool = False) -> Trained:
    """Runs the recipe's stages, then decorrelates the embeddings and fits the scale on photographs held back.

    Args:
        corpus: what to train on.
        left_out: what to do without.
        resume: go on with the run that is in the work folder.
    """
    recipe, config = corpus.recipe, corpus.recipe.train
    material = assemble(corpus, left_out)
    scales = [Standardise(*moments(side.features)) for side in (material.photographs, material.phrases)]
    projections = Projections(corpus.towers.config, *scales, material.tail, rngs=nnx.Rngs(config.seed))
    loss_fn = projection_loss(
        logit_scale=recipe.logit_scale,
        text_noise=recipe.text_noise,
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
                config.seed,
                mapped=mapped,
            )
        return validation_batches(load_ontology(), material.held_back, material.phrases, recipe.mix, mapped=mapped)

    best = fit(projections, config, loss_fn, make_batches, out_dir=run_folder(corpus.work, left_out), resume=resume)
    image = best.image_standardise.fold(parameter_table(best.image_projection))
    text = best.text_standardise.fold(parameter_table(best.text_projection))
    sample = np.random.default_rng(config.seed).permutation(len(material.photographs.features))[:20_000]
    decorrelate(
        image, text, project(image, _features(best, material.photographs, np.sort(sample))), recipe.decorrelation
    )
    held_back = _features(best, material.held_back, np.arange(len(material.held_back.concepts)))
    return Trained(
        {f"image_projection.{name}": values for name, values in image.items()}
        | {f"text_projection.{name}": values for name, values in text.items()}
        | ({} if best.image_tail is None else tower_weights(best.image_tail)),
        _fit_scale(material, held_back, image, text),
    )


def _features(model: Projections, photographs: Photographs, rows: Array) -> Array:
    """Pooled features (N, D) of some photographs, by the trained tail where there is one."""
    if model.image_tail is None or photographs.maps is None:
        return photographs.features[rows]
    return tail_features(model.image_tail, photographs.maps, rows)


def run_folder(work: Path, left_out: LeftOut | None) -> Path:
    """Where a run keeps its checkpoints and metrics."""
    if left_out is None:
        return work / "run"
    return work / f"run-without-{left_out.source}{'-classes' if left_out.classes else ''}"


def _fit_scale(
    material: Material, held_back: Array, image: dict[str, Array], text: dict[str, Array], labels: int = 10
) -> float:
    """The scale with the least negative log-likelihood on photographs held back, each among ten unrelated labels.

    `held_back` are their pooled features (N, D).
    """
    rng = np.random.default_rng(0)
    texts = Groups.by_value(material.phrases.concepts, len(load_ontology()))
    usable = np.flatnonzero(texts.counts > 0)
    embeddings = unit_rows(project(text, material.phrases.features[texts.first(usable)]))
    shown = material.held_back.concepts
    images = unit_rows(project(image, held_back))
    place = np.searchsorted(usable, shown)
    unrelated = ~(load_ontology().ancestors[np.ix_(shown, usable)] | load_ontology().ancestors[np.ix_(usable, shown)].T)
    others = np.array([rng.choice(np.flatnonzero(row), labels - 1, replace=False) for row in unrelated])
    chosen = np.concatenate([place[:, None], others], axis=1)  # (N, 10), the right one first
    cosines = np.einsum("ne,nke->nk", images, embeddings[chosen])

    def loss(scale: float) -> float:
        logits = scale * cosines
        return float(
            (np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1) - logits[:, 0]).mean()
        )

    return min(np.arange(5.0, 61.0), key=loss)
